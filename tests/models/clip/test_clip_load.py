import json
import shutil
import warnings
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxinf.errors import InputError
from jaxinf.models.clip import Preprocess, load
from jaxinf.models.clip.architectures import openai_config
from jaxinf.models.clip.preprocess import CLIP_MEAN

FIXTURES = Path(__file__).parent / "fixtures"


def arrays_of(name):
    folder = FIXTURES / name
    return load_file(next(folder.glob("*.safetensors")))


def same(model, other):
    flat, structure = jax.tree.flatten(model.variables)
    others, other_structure = jax.tree.flatten(other.variables)
    assert structure == other_structure
    for leaf, expected in zip(flat, others, strict=True):
        np.testing.assert_array_equal(leaf, expected)


def edit(folder, file, change):
    path = folder / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def open_clip_folder(tmp_path):
    return Path(shutil.copytree(FIXTURES / "vit_gelu", tmp_path / "vit_gelu"))


@pytest.fixture
def hugging_face_folder(tmp_path):
    return Path(shutil.copytree(FIXTURES / "hugging_face_end_token", tmp_path / "hf"))


def test_the_config_speaks(open_clip_folder):
    model, preprocess, tokenize = load(open_clip_folder)
    config = model.module.config
    assert config.vision.transformer.activation == config.text.transformer.activation == "gelu"
    assert (config.vision.transformer.heads, config.vision.transformer.mlp_width) == (3, 120)
    assert (config.vision.transformer.eps, config.text.transformer.eps) == (1e-5, 1e-3)
    assert preprocess == Preprocess(
        size=24, resize_to=24, mean=(0.5, 0.4, 0.3), std=(0.3, 0.25, 0.2)
    )
    assert (tokenize.context_length, tokenize.vocab_size) == (12, 99)


def test_a_file_is_read_with_the_config_beside_it(hugging_face_folder):
    checkpoint = load(hugging_face_folder / "model.safetensors")
    assert checkpoint.model.module.config.text.end_token == 90
    assert checkpoint.preprocess.library == "transformers"
    (hugging_face_folder / "preprocessor_config.json").unlink()
    assert load(hugging_face_folder).preprocess.mean == CLIP_MEAN
    content = {"image_processor": {"image_mean": [0.1, 0.2, 0.3], "resample": 2}}
    (hugging_face_folder / "processor_config.json").write_text(json.dumps(content))
    preprocess = load(hugging_face_folder).preprocess
    assert (preprocess.mean, preprocess.filter) == ((0.1, 0.2, 0.3), "bilinear")


def test_bfloat16_and_shards(hugging_face_folder):
    whole = load(hugging_face_folder).model
    arrays = arrays_of("hugging_face_end_token")
    short = {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()}
    names = sorted(short)
    (hugging_face_folder / "model.safetensors").unlink()
    index = {}
    for shard, keys in enumerate((names[::2], names[1::2])):
        file = f"model-{shard}.safetensors"
        save_file({key: short[key] for key in keys}, hugging_face_folder / file)
        index |= dict.fromkeys(keys, file)
    path = hugging_face_folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    found = load(hugging_face_folder).model.variables["params"]["visual"]["proj"]
    exact = whole.variables["params"]["visual"]["proj"]
    np.testing.assert_array_equal(found, exact.astype(ml_dtypes.bfloat16).astype(np.float32))
    (hugging_face_folder / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-1\.safetensors: no such file; it is a shard"):
        load(hugging_face_folder)


def test_a_training_checkpoint_of_open_clip(open_clip_folder):
    torch = pytest.importorskip("torch")
    expected = load(open_clip_folder).model
    file = open_clip_folder / "open_clip_model.safetensors"
    state = {f"module.{key}": torch.from_numpy(value) for key, value in load_file(file).items()}
    file.unlink()
    torch.save({"epoch": 3, "state_dict": state}, open_clip_folder / "epoch_3.pt")
    same(load(open_clip_folder).model, expected)
    # CustomTextCLIP keeps the text tower apart
    text = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_proj")
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    custom = {f"text.{key}" if key.startswith(text) else key: bare[key] for key in bare}
    torch.save(custom, open_clip_folder / "epoch_3.pt")
    same(load(open_clip_folder).model, expected)


def scripted(arrays, path):
    """Write arrays as a TorchScript archive, with OpenAI's three buffers."""
    torch = pytest.importorskip("torch")
    root = torch.nn.Module()
    for name, array in arrays.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        module.register_buffer(leaf, torch.from_numpy(array))
    for name in ("input_resolution", "context_length", "vocab_size"):
        root.register_buffer(name, torch.tensor(1))
    with warnings.catch_warnings():
        # PyTorch deprecates the making of such archives; OpenAI's are there
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(root), path)


@pytest.mark.parametrize("name", ["vit_quick_gelu", "resnet"])
def test_an_archive_of_openai_needs_no_config(tmp_path, name):
    scripted(arrays_of(name), tmp_path / "model.pt")
    checkpoint, expected = load(tmp_path / "model.pt"), load(FIXTURES / name).model
    assert checkpoint.model.module.config == expected.module.config
    same(checkpoint.model, expected)
    assert checkpoint.preprocess.mean == CLIP_MEAN
    with pytest.raises(InputError, match="comes with its own config: leave out architecture="):
        load(tmp_path / "model.pt", activation="gelu")


def test_a_damaged_archive(tmp_path):
    arrays = arrays_of("vit_quick_gelu")
    del arrays["ln_final.weight"]
    scripted(arrays, tmp_path / "model.pt")
    with pytest.raises(
        InputError, match=r"no archive of OpenAI's CLIP: 'ln_final.weight' is missing"
    ):
        load(tmp_path / "model.pt")
    scripted(arrays_of("vit_quick_gelu"), tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"model\.pt is truncated or no PyTorch checkpoint"):
        load(tmp_path / "model.pt")


def test_a_bare_state_dict_must_be_told(open_clip_folder):
    config = load(open_clip_folder).model.module.config
    (open_clip_folder / "open_clip_config.json").unlink()
    with pytest.raises(InputError, match=r"state dict without a config.*pass architecture= and"):
        load(open_clip_folder)
    with pytest.raises(InputError, match="pass activation='quick_gelu'"):
        load(open_clip_folder, architecture="ViT-B-32")
    with pytest.raises(InputError, match="a CLIPConfig says the activation itself"):
        load(open_clip_folder, architecture=config, activation="gelu")
    with pytest.raises(InputError, match="architecture 'ViT-B-31' is not known: choose among"):
        load(open_clip_folder, architecture="ViT-B-31", activation="gelu")
    with pytest.raises(InputError, match=r"does not fit the architecture: .*wrong shape: "):
        load(open_clip_folder, architecture="RN50", activation="gelu")
    same(load(open_clip_folder, architecture=config).model, load(FIXTURES / "vit_gelu").model)


def test_every_array_is_accounted_for(hugging_face_folder):
    arrays = arrays_of("hugging_face_end_token")
    prefix = "text_model.encoder.layers.1.self_attn"
    del arrays[f"{prefix}.k_proj.weight"]
    arrays["vision_model.embeddings.position_ids"] = np.arange(10)
    arrays |= {f"classifier.{i}": np.zeros(1, np.float32) for i in range(5)}
    arrays["visual_projection.weight"] = arrays["visual_projection.weight"].T.copy()
    arrays[f"{prefix}.v_proj.bias"] = arrays[f"{prefix}.v_proj.bias"][:-1]
    save_file(arrays, hugging_face_folder / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load(hugging_face_folder)
    message = str(caught.value)
    assert f"missing: {prefix}.k_proj.weight;" in message
    assert "unexpected: classifier.0, classifier.1, classifier.2 and 2 more;" in message
    assert "visual_projection.weight is (48, 20), not (20, 48)" in message
    assert f"{prefix}.v_proj.bias is (31,), not (32,)" in message
    assert "position_ids" not in message


def test_values_are_checked(open_clip_folder):
    arrays = arrays_of("vit_gelu")
    arrays["ln_final.bias"][3] = np.nan
    save_file(arrays, open_clip_folder / "open_clip_model.safetensors")
    with pytest.raises(InputError, match=r"\['ln_final.bias'\] holds 1 NaN or infinite"):
        load(open_clip_folder)


def test_files_that_are_no_checkpoint(tmp_path, open_clip_folder):
    file = open_clip_folder / "open_clip_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="is truncated or no safetensors file"):
        load(open_clip_folder)
    save_file({"layer.weight": np.zeros(3, np.float32)}, file)
    with pytest.raises(InputError, match=r"holds no CLIP: .* among its 1 arrays \(layer.weight\)"):
        load(open_clip_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        load(tmp_path / "empty")
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / "empty" / name).write_bytes(whole)
    with pytest.raises(InputError, match=r"several checkpoints \(a.safetensors, b.safetensors\)"):
        load(tmp_path / "empty")
    with pytest.raises(InputError, match="no such file or folder"):
        load(tmp_path / "nowhere")


def test_foreign_pytorch_files(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("text.pt", "empty.pt"):
        with pytest.raises(InputError, match="is truncated or no PyTorch checkpoint"):
            load(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds no state dict"):
        load(tmp_path / "list.pt")


def test_configs_that_ask_for_more(open_clip_folder, hugging_face_folder):
    edit(
        open_clip_folder,
        "open_clip_config.json",
        lambda content: content["model_cfg"]["vision_cfg"].update(timm_model_name="vit"),
    )
    with pytest.raises(InputError, match=r"vision_cfg\.timm_model_name is 'vit', which is n"):
        load(open_clip_folder)
    (open_clip_folder / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON file"):
        load(open_clip_folder)
    edit(hugging_face_folder, "config.json", lambda content: content.update(model_type="siglip"))
    with pytest.raises(InputError, match="is no CLIP's: model_type is 'siglip'"):
        load(hugging_face_folder)


def test_openai_heads_have_64_channels():
    with pytest.raises(InputError, match="a width of 32 has no head of 64 channels"):
        openai_config(arrays_of("vit_gelu"))
