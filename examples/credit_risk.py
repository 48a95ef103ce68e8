# %% [markdown]
# # Credit risk: a bank and a payment processor
#
# A bank knows its customers and who defaulted on a card. A payment processor knows the bills and payments of the same
# people. Together they estimate who will default; neither shows its columns to the other.
#
# The data are 10,000 rows of "Default of Credit Card Clients" (Taiwan, 2005). `world.start` runs the bank, the processor, a
# dealer of randomness and a coordinator as processes on this machine.

# %%
import world

import silos.sdk as accord

data = world.sample("credit_default_taiwan", 10_000)
place = world.start(data, purpose="credit risk")
bank = accord.open(place.home("bank"))

# %% [markdown]
# `join` says which rows and which columns of whom. Nothing is sent until a model is fitted. The job's disclosure, which
# all parties check against their policies, says who learns what; this is what it says about the processor.

# %%
joined = bank.join(
    "processor:customers",
    "customers",
    ["email"],
    purpose="credit risk",
    dealer="dealer",
    label="y",
    features=world.features(data),
    groups={"bank": ["SEX"]},
    evaluate={"thresholds": ["0.3", "0.5"]},
)
model = accord.VerticalLogisticRegression().fit(joined)
told = model.job_.disclosure
print("\n".join(told[told.index("processor learns") : told.index("dealer learns")]))

# %% [markdown]
# The bank sees the coefficients of its own columns, of standardised inputs, with standard errors, tests and intervals. The
# processor has those of its own.

# %%
print(model.summary())

# %% [markdown]
# How good the model is was measured on the 30 % of the rows that were held out, without opening a score. `report` writes
# all figures and curves as one HTML page. The bank alone would have the AUC in the first line.

# %%
print(f"AUC, the bank alone: {world.alone(data, 'bank'):.3f}; together: {model.auc_:.3f}")
for row in model.metrics_["gains"][:3]:
    print(f"tenth {row['bin']}: {row['rows']} customers, {row['outcome']} defaults, lift {row['lift']}")
for row in model.metrics_["confusion"]:
    print(f"cut {row['threshold']}: precision {row['precision']}, recall {row['recall']}")
model.report(place.home("bank") / "report.html")
print(f"the report has {len((place.home('bank') / 'report.html').read_text()):,} characters")

# %% [markdown]
# Both keep their parts of the model. A decision for each customer is the least that a lender needs: whether the predicted
# risk is 30 % or more. That is all that the bank is told here. These customers include those that the model was trained on,
# so this shows how to score and says nothing about quality.

# %%
job = bank.predict(
    model.job_.id, "processor:customers", "customers", purpose="credit risk", output="decision", cuts=[0.3]
)
decided = job.wait().result().table().column("_prediction").to_numpy()
print(f"{len(decided):,} customers scored, {decided.mean():.1%} at or above the cut")

# %%
bank.close()
place.stop()
