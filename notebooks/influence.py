# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which training examples made the model say this?
#
# A network is trained on handwritten digits into whose training set wrong labels were planted.
# For a few of its mistakes we then ask which training examples pushed it there. On Colab, run
# `pip install 'jaxinf[cli]'` first: it moves nothing that Colab preinstalls.

# %%
import flax
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxinf

print("jaxinf", jaxinf.__version__, "jax", jax.__version__, "flax", flax.__version__)
print(jax.devices())

# %% [markdown]
# ## A network, and what was done to its data

# %%
from jaxinf.adapters import from_linen, stateful_from_linen
from jaxinf.datasets import load_digits, symmetric_label_noise
from jaxinf.models import MLP, cross_entropy, fit, predict

clean, test = load_digits()
noisy = symmetric_label_noise(clean, 0.1, 10, seed=0)
train = noisy.examples

module = MLP((64,), 10)
variables = module.init(jax.random.key(0), train["x"][:1])
loss, (params, state) = stateful_from_linen(module, variables, cross_entropy)
fitted = fit(
    loss,
    params,
    state,
    train,
    optimizer=optax.sgd(0.1, momentum=0.9),
    num_epochs=15,
    batch_size=64,
    key=jax.random.key(1),
    progress=False,
)
variables = {"params": fitted.params}
logits = predict(module, variables, test["x"])
print("test accuracy", np.mean(np.argmax(logits, axis=1) == test["y"]))

# %% [markdown]
# ## The question
#
# A query is an example with the label whose loss is to be explained. Here: the network's
# mistakes, with the label that it wrongly gave, so that proponents are what taught it so.

# %%
from jaxinf import attribute
from jaxinf.influence import forward_inf_jvp, grad_cos

guess = np.argmax(logits, axis=1).astype(np.int32)
wrong = np.flatnonzero(guess != test["y"])[:5]
queries = {"x": test["x"][wrong], "y": guess[wrong]}
loss_fn, params = from_linen(module, variables, cross_entropy, train=False)

by_step = attribute(forward_inf_jvp(loss_fn), params, queries, train, progress=False)
by_angle = attribute(grad_cos(loss_fn), params, queries, train, progress=False)
print(by_step.plan)
print({name: np.round(figure, 3) for name, figure in by_step.diagnostics.items()})

# %% [markdown]
# ## The answer
#
# Each row: a mistake, then its five strongest proponents. Red: a label that was planted wrong.

# %%
best, _ = by_angle.proponents(5)
figure, axes = plt.subplots(len(wrong), 6, figsize=(8, 1.6 * len(wrong)))
for row, query in enumerate(wrong):
    shown = [(test["x"][query], f"says {guess[query]}\nis {test['y'][query]}", "black")]
    shown += [
        (train["x"][i], f"label {train['y'][i]}", "red" if noisy.is_flipped[i] else "gray")
        for i in best[row]
    ]
    for axis, (image, title, colour) in zip(axes[row], shown, strict=True):
        axis.imshow(image[..., 0], cmap="gray_r")
        axis.set_title(title, fontsize=8, color=colour)
        axis.axis("off")
plt.tight_layout()
plt.show()

# %% [markdown]
# How many of the strongest proponents carry the label that the network wrongly gave, and how many
# were planted:

# %%
for name, found in (("first-order step", by_step), ("gradient cosine", by_angle)):
    top, _ = found.proponents(5)
    same = np.mean(train["y"][top] == guess[wrong][:, None])
    print(f"{name}: {same:.0%} carry it, {np.mean(noisy.is_flipped[top]):.0%} were planted")
