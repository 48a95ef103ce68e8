# %% [markdown]
# # Demand: a bike-sharing operator and a weather service
#
# The operator knows how many bikes were rented in an hour and the calendar; the weather service knows the weather. Counts
# ask for a Poisson regression. The data are hours of Bike Sharing (Washington, 2011 and 2012); the hour takes the
# place of a person here, so the invented e-mail address stands for a time and a place.

# %%
import math

import world

import silos.sdk as accord

data = world.sample("bike_sharing", 8000)
place = world.start(data, purpose="planning")
operator, weather = (accord.open(place.home(name)) for name in data.owners)

# %%
joined = operator.join(
    "weather:customers",
    "customers",
    ["email"],
    purpose="planning",
    dealer="dealer",
    label="y",
    features=world.features(data),
)
model = accord.VerticalPoissonRegression().fit(joined)
print(model.summary())

# %% [markdown]
# The weather service has the coefficients of its own columns from the same job. A coefficient of a Poisson regression
# multiplies: by so much demand grows with one standard deviation of the input.

# %%
theirs = weather.job(model.job_.id).result().values["model"]
for item in theirs["inputs"]:
    print(f"{item['input']:<12} times {math.exp(float(item['coefficient'])):.2f}")

# %% [markdown]
# **Take the standard errors with care.** A Poisson model says that the variance of a count is its mean. Here the mean
# deviance is far above 1: rides differ from hour to hour by much more, above all because the time of the day is not
# among the columns. The coefficients are still estimates of the mean; the standard errors are too small, by about the root of
# that number. "D2" is the part of the deviance that the columns explain.

# %%
loss = model.metrics_["loss"]
print(f"mean deviance {loss['mean_deviance']}, of a constant {loss['mean_deviance_of_constant']}, D2 {loss['d2']}")
print(f"standard errors are too small by a factor of about {math.sqrt(float(loss['mean_deviance'])):.0f}")
for row in model.metrics_["calibration"][::3]:
    print(f"bin {row['bin']}: predicted {row['predicted']}, observed {row['observed']}")

# %%
operator.close()
weather.close()
place.stop()
