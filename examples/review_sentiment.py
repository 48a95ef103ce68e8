# %% [markdown]
# # Review sentiment: a brand and the shop that has the texts
#
# A shop collects reviews of clothes. The brand knows the product and whether the customer recommends it. Reading the texts
# would help the brand to see who is content, but the shop does not hand them out.
#
# The data are 6,000 of the Women's E-Commerce Clothing Reviews.

# %%
import world

import silos.sdk as accord

data = world.sample("reviews", 6000)
place = world.start(data, purpose="customer satisfaction")
brand = accord.open(place.home("brand"))
print(f"{data.y.mean():.0%} recommend the product")
print(f"for example: {data.columns[1]['Review Text'][0][:120]} ...")

# %% [markdown]
# `Review Text:text` makes numbers of the text at the shop: term frequencies and their singular vectors, by an encoder
# that is fitted on the shop's training rows and stays there. Neither words nor vocabulary leave the shop.

# %%
features = world.features(data, Review_Text="text")
print(features)
joined = brand.join(
    "shop:customers",
    "customers",
    ["email"],
    purpose="customer satisfaction",
    dealer="dealer",
    label="y",
    features=features,
    evaluate={"thresholds": ["0.5", "0.8"]},
)
model = accord.VerticalLogisticRegression(ridge=10, inference=False).fit(joined)
print(model.summary())

# %% [markdown]
# What the text is worth, on held-out reviews: compare with the brand's own columns alone.

# %%
print(f"AUC, the brand alone: {world.alone(data, 'brand'):.3f}; with the texts: {model.auc_:.3f}")
last = model.metrics_["gains"][-1]
print(f"of the tenth with the lowest scores, {float(last['rate']):.0%} recommend the product")

# %%
brand.close()
place.stop()
