# %% [markdown]
# # Health: a clinic and an imaging centre, with few patients
#
# A clinic knows its patients and their diagnosis, an imaging centre what its tests showed. The data are the 303 patients
# of Heart Disease (Cleveland). So few rows ask for care, and this example is about that care more than about hearts.
# The label is 1 for 54 % of them. Judging by the signs below (angina under exercise makes it less likely), 1 stands for
# a healthy heart in this file.

# %%
import world

import silos.sdk as accord
from silos.errors import SiloError

data = world.sample("heart", 303)
place = world.start(data, purpose="diagnosis")
clinic = accord.open(place.home("clinic"))

# %% [markdown]
# Three settings matter with few rows. `minimum_matches`: with fewer common patients the job stops before anything else is
# revealed; the silos' policies ask for at least 100. `rare_category`: levels with fewer patients are pooled, by default
# below 100, which would pool nearly everything here. `ridge`: a penalty, because twenty inputs on two hundred rows fit noise.

# %%
joined = clinic.join(
    "imaging:customers",
    "customers",
    ["email"],
    purpose="diagnosis",
    dealer="dealer",
    label="y",
    features=world.features(data),
    align={"minimum_matches": 250},
    encoding={"rare_category": 20},
)
models = [accord.VerticalLogisticRegression(ridge=10, inference=False).fit(joined) for _ in range(3)]
print(models[0].summary())

# %% [markdown]
# Every job holds out other patients. Three jobs show how much the figure depends on that; the margins are half of a
# 95 % interval, at most. **Nobody should be treated by a model that was judged on some eighty patients.**

# %%
for model in models:
    positives, rows = model.metrics_["positives"], model.metrics_["rows"]
    margin = world.margin(model.auc_, positives, rows - positives)
    print(f"AUC {model.auc_:.3f} +- {margin:.3f} on {rows} held-out patients, {positives} of them with label 1")
print(f"AUC, the clinic alone, cross-validated: {world.alone(data, 'clinic'):.3f}")

# %% [markdown]
# If fewer patients than the minimum are common to both, nothing is trained.

# %%
strict = clinic.join(
    "imaging:customers",
    "customers",
    ["email"],
    purpose="diagnosis",
    dealer="dealer",
    label="y",
    features=world.features(data),
    align={"minimum_matches": 300},
)
try:
    accord.VerticalLogisticRegression().fit(strict)
except SiloError as exc:
    print("no model:", str(exc).partition(": ")[2])

# %%
clinic.close()
place.stop()
