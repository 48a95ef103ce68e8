# %% [markdown]
# # Fraud: a card issuer and a payment provider
#
# The issuer knows the card, the amount and which payments were fraud; the merchant's provider knows where, when and how they
# were made. Fraud hides in combinations, which trees find. The data are 8,000 **synthetic** card payments from
# EvalML's demonstrations, so the figures say nothing about real fraud.

# %%
import world

import silos.sdk as accord

data = world.sample("fraud", 8000)
place = world.start(data, purpose="fraud")
issuer, merchant = (accord.open(place.home(name)) for name in data.owners)
joined = issuer.join(
    "merchant:customers",
    "customers",
    ["email"],
    purpose="fraud",
    dealer="dealer",
    label="y",
    features=world.features(data),
    evaluate={"thresholds": ["0.2", "0.4"]},
)

# %% [markdown]
# Gradient-boosted trees: each owner learns the splits of its own columns; which rows go where and the values of the leaves
# stay hidden from both.

# %%
trees = accord.VerticalGradientBoosting(trees=10, depth=4).fit(joined)
print(trees.summary())

# %%
theirs = merchant.job(trees.job_.id).result().values["model"]
print(
    "splits of the merchant's columns:", {item["column"]: item["splits"] for item in theirs["inputs"] if item["splits"]}
)

# %% [markdown]
# A logistic regression on the same rows, for comparison, and what the issuer has alone. Here most of it is in the issuer's
# own columns: a partner's data do not always help, and a job like this is how to find out. The best tenth of the payments by
# score is what an investigator would look at first; nearly all of them are fraud.

# %%
linear = accord.VerticalLogisticRegression(ridge=1, inference=False).fit(joined)
print(
    f"AUC: trees {trees.auc_:.3f}, logistic {linear.auc_:.3f}, logistic of the issuer alone {world.alone(data, 'issuer'):.3f}"
)
for row in trees.metrics_["gains"][:2]:
    print(
        f"tenth {row['bin']}: {row['outcome']} of {row['rows']} are fraud, {float(row['gain']):.0%} of all fraud so far"
    )
for row in trees.metrics_["confusion"]:
    print(f"cut {row['threshold']}: precision {row['precision']}, recall {row['recall']}")

# %%
issuer.close()
merchant.close()
place.stop()
