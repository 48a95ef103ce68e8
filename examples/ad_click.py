# %% [markdown]
# # Ad clicks: a shop's platform and the brands on it
#
# A fashion platform shows recommended items and knows who clicks. The brand knows its items. Together they estimate
# which impression is clicked. The data are 60,000 impressions of the Open Bandit Dataset (ZOZO); only 287 were clicked.

# %%
import numpy as np
import world

import silos.sdk as accord

data = world.sample("obp_clicks", 60_000)
place = world.start(data, purpose="recommendation")
platform = accord.open(place.home("platform"))

# %% [markdown]
# Click rates by the policy that chose the item and by its position are the platform's own business: both columns and the
# clicks are its own, so no job is needed. The policy "bts" (Thompson sampling) has more clicks than random choice. Mind the
# margins: half of a 95 % interval is about a quarter of most of these rates.

# %%
own = data.columns[data.active]
for column in ("policy", "position"):
    for level in np.unique(own[column]):
        clicked = data.y[own[column] == level]
        margin = 1.96 * np.sqrt(clicked.mean() / len(clicked))
        print(f"{column} {level:<7}{len(clicked):>7,} shown, {clicked.mean():.3%} +- {margin:.3%} clicked")

# %% [markdown]
# The joint model. There are few clicks and many levels, so a ridge penalty keeps it calm, and no standard errors are asked
# for.

# %%
joined = platform.join(
    "brand:customers",
    "customers",
    ["email"],
    purpose="recommendation",
    dealer="dealer",
    label="y",
    features=world.features(data),
    groups={"platform": ["policy"]},
    evaluate={"bins": 5, "thresholds": ["0.005"]},
)
model = accord.VerticalLogisticRegression(ridge=50, inference=False).fit(joined)
print(model.summary())

# %% [markdown]
# **This is a weak model**, and that is the honest result. Clicks on ads are hardly predictable from a handful of columns:
# the margin of the AUC reaches down to pure chance, and the brand's columns add nothing that could be told from it. In this
# run only the first fifth of the impressions has more clicks than the average; the other four are in no order. A ranking
# by this model is worth a test on live traffic, and not more.

# %%
positives, rows = model.metrics_["positives"], model.metrics_["rows"]
print(f"AUC {model.auc_:.3f} +- {world.margin(model.auc_, positives, rows - positives):.3f}, from {positives} clicks")
print(f"AUC, the platform alone: {world.alone(data, 'platform'):.3f}")
for row in model.metrics_["gains"]:
    print(f"fifth {row['bin']}: {row['rows']:,} shown, {float(row['rate']):.2%} clicked, lift {row['lift']}")

# %%
platform.close()
place.stop()
