import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.models import load_checkpoints
from jaxinf.models.checkpoints import epoch_path, open_run, save_epoch, saved_epochs


def test_unfinished_checkpoints_do_not_count(tmp_path):
    save_epoch(tmp_path, 12, {"params": {"w": jnp.ones(2)}})
    save_epoch(tmp_path, 3, {"params": {"w": jnp.zeros(2)}})
    (tmp_path / "epoch_000020.orbax-checkpoint-tmp").mkdir()
    assert saved_epochs(tmp_path) == [3, 12]
    stacked, epochs = load_checkpoints(tmp_path)
    assert epochs.tolist() == [3, 12]
    assert stacked["w"].tolist() == [[0, 0], [1, 1]]


def test_structure_of_like(tmp_path):
    save_epoch(tmp_path, 1, {"params": (jnp.ones(2), [jnp.zeros(1)])})
    stacked, _ = load_checkpoints(tmp_path, like=(np.ones(2, np.float32), [np.ones(1, np.float32)]))
    assert isinstance(stacked, tuple)
    assert stacked[0].shape == (1, 2)


def test_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint: pass checkpoints= to fit"):
        load_checkpoints(tmp_path / "absent")


def test_a_folder_belongs_to_one_run(tmp_path):
    open_run(tmp_path / "run", {"data": "a", "batch_size": 2})
    open_run(tmp_path / "run", {"data": "a", "batch_size": 2})
    with pytest.raises(InputError, match=r"another run \(other data, batch_size\)"):
        open_run(tmp_path / "run", {"data": "b", "batch_size": 3})
    epoch_path(tmp_path, 1).mkdir()
    with pytest.raises(InputError, match=r"no run\.json"):
        open_run(tmp_path, {"data": "a"})
