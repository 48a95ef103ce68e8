# %% [markdown]
# # Conversion uplift: who visits because of an e-mail?
#
# A retailer sent an e-mail for a brand to a random half of its customers. The retailer knows what they bought before; the
# brand sees who visits its site. Whom should the next e-mail go to? Not those who visit anyway: those whom it changes.
#
# The data are MineThatData's (K. Hillstrom): the women's e-mail and the control group, 42,693 customers. Both parties know who
# got the e-mail. Half of the customers are for training, the other half, known to both by an agreed draw, for testing.

# %%
import numpy as np
import world

import silos.sdk as accord

data = world.load("hillstrom")
data = data.take(data.columns[0]["segment"] != "Mens E-Mail")
bought, mailed = data.columns[1], (data.columns[0]["segment"] == "Womens E-Mail").astype(float)
email = np.array([world.email(i) for i in range(len(data.y))])
test = np.random.default_rng(7).random(len(data.y)) < 0.5
place = world.begin(("brand", "retailer"), "brand", "campaign")


def register(name, rows, treated):
    """The same customers at both. The products of the e-mail with other columns are the retailer's to make."""
    own = {c: bought[c][rows] for c in ("recency", "history", "mens", "womens", "zip_code")}
    own |= {"mailed": treated[rows]} | {f"mailed_{c}": treated[rows] * own[c] for c in ("recency", "mens", "womens")}
    place.register("retailer", name, {"email": email[rows], **own})
    label = {"y": data.y[rows], "newbie": bought["newbie"][rows], "channel": bought["channel"][rows]}
    place.register("brand", name, {"email": email[rows], **label})


everybody, nobody = np.ones(len(test)), np.zeros(len(test))
register("mailed", ~test & (mailed == 1), mailed)
register("control", ~test & (mailed == 0), mailed)
register("both", ~test, mailed)
register("test-if-mailed", test, everybody)
register("test-if-not", test, nobody)
brand = accord.open(place.home("brand"))
for name, of in (("training", ~test), ("testing", test)):
    rates = [data.y[of & (mailed == arm)].mean() for arm in (1, 0)]
    print(
        f"{name}: {of.sum():,} customers; {rates[0]:.1%} of those with the e-mail visit, {rates[1]:.1%} of the others"
    )

# %% [markdown]
# **Two models**: one of the visits of those who got the e-mail, one of those who did not. The brand's label, the brand's two
# columns and the retailer's five are in both. Their difference, for a new customer, is the estimated uplift.

# %%
columns = ["recency", "history", "mens", "womens", "zip_code:category"]


def fit(name, features):
    joined = brand.join(
        f"retailer:{name}",
        name,
        ["email"],
        purpose="campaign",
        dealer="dealer",
        label="y",
        features={"brand": ["newbie", "channel:category"], "retailer": features},
        evaluate={"holdout_percent": 10},
    )
    return accord.VerticalLogisticRegression(inference=False).fit(joined)


with_mail, without = fit("mailed", columns), fit("control", columns)
print(f"AUC on held-out training rows: mailed {with_mail.auc_:.3f}, not mailed {without.auc_:.3f}")

# %% [markdown]
# **One model with interactions**: "was mailed", and its products with the retailer's columns. A test customer is scored
# twice, as if mailed and as if not.

# %%
products = ["mailed", "mailed_recency", "mailed_mens", "mailed_womens"]
interacting = fit("both", [*columns, *products])
print(f"AUC on held-out training rows: {interacting.auc_:.3f}")

# %% [markdown]
# The brand is told a prediction for each of the test customers, rounded to 0.001. It knows who of them was mailed and who
# visited, so it can check the order by itself: sort by estimated uplift, cut into tenths, and in each tenth take the visit rate
# of the mailed minus that of the others. That is a fair comparison because the e-mail was sent at random.

# %%


def predict(model, name):
    job = brand.predict(
        model.job_.id, f"retailer:{name}", name, purpose="campaign", output="rounded", low=0, high=1, step=0.001
    )
    table = job.wait().result().table()
    found = dict(zip(table["email"].to_pylist(), table["_prediction"].to_pylist(), strict=True))
    return np.array([found[one] for one in email[test]])


def observed(rows):
    """Uplift and its standard error among some test customers."""
    arms = [data.y[test][rows & (mailed[test] == arm)] for arm in (1, 0)]
    return arms[0].mean() - arms[1].mean(), np.sqrt(sum(arm.mean() * (1 - arm.mean()) / len(arm) for arm in arms))


def show(title, uplift):
    # Ties are broken at random, so that equal predictions do not keep the order of the file.
    order = np.lexsort((np.random.default_rng(1).random(len(uplift)), -uplift))
    place_of = np.empty(len(order), dtype=int)
    place_of[order] = np.arange(len(order)) * 10 // len(order)
    print(f"{title}\ntenth  estimated  observed  std err")
    for tenth in range(10):
        found, error = observed(place_of == tenth)
        print(f"{tenth + 1:>5}{uplift[place_of == tenth].mean():>11.3f}{found:>10.3f}{error:>9.3f}")
    for half, name in enumerate(("first", "second")):
        found, error = observed(place_of // 5 == half)
        print(f"{name} half: observed uplift {found:.3f}, std err {error:.3f}")


show("Two models", predict(with_mail, "test-if-mailed") - predict(without, "test-if-not"))
show("Interactions", predict(interacting, "test-if-mailed") - predict(interacting, "test-if-not"))

# %% [markdown]
# Single tenths are noisy, so their order means little; the halves can be told apart. Both models find the customers whom the
# e-mail moves: an e-mail to the first half brings several times as many additional visits as one to the second. The two
# models agree because they say nearly the same; "two models" has an interaction with every column.

# %%
brand.close()
place.stop()
