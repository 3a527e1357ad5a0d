"""`jaxinf membership`, whole: the library's numbers, damaged files, resumption, refusals."""

import io
import json
import shutil
import tarfile

import jax
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from safetensors.numpy import save_file

from jaxinf.cli import membership_rows
from jaxinf.membership import cosine_similarity_attack
from jaxinf.models.clip import (
    CLIPConfig,
    TextConfig,
    TransformerConfig,
    VisionTransformerConfig,
    load,
    names,
)
from jaxinf.models.clip_train import untrained_clip

SIZE, WIDTH = 16, 8
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny CLIP with random weights, saved as open_clip does."""
    folder = tmp_path_factory.mktemp("model")
    stack = TransformerConfig(width=WIDTH, layers=1, heads=2, mlp_width=WIDTH, activation="gelu")
    config = CLIPConfig(
        embed_dim=WIDTH,
        vision=VisionTransformerConfig(image_size=SIZE, patch_size=8, transformer=stack),
        text=TextConfig(context_length=12, vocab_size=49408, transformer=stack),
    )
    arrays = {}
    for path, leaf in flatten_dict(untrained_clip(config, key=jax.random.key(5)).variables).items():
        array = np.asarray(leaf)
        if path[-1] == "kernel":
            array = array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
        arrays[names.open_clip_name(path)] = np.array(array, order="C")
    save_file(arrays, folder / "open_clip_model.safetensors")
    tower = {"layers": 1, "width": WIDTH, "mlp_ratio": 1.0}
    model = {
        "embed_dim": WIDTH,
        "vision_cfg": tower | {"image_size": SIZE, "patch_size": 8, "head_width": 4},
        "text_cfg": tower | {"context_length": 12, "vocab_size": 49408, "heads": 2},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    return folder


def caption(name, number):
    """Words that no other pair has, and two that all have."""
    odd = LETTERS[number % 26] + LETTERS[number // 26] + name
    return f"picture {odd} thing"


def image_bytes(rng):
    file = io.BytesIO()
    pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_folder(path, count, seed, *, columns=None):
    """A folder of images with captions.csv."""
    rng = np.random.default_rng(seed)
    path.mkdir()
    extra = columns or {}
    lines = [",".join(("file", "caption", *extra))]
    for number in range(count):
        (path / f"{number}.png").write_bytes(image_bytes(rng))
        cells = (f"{number}.png", caption(path.name, number), *(c[number] for c in extra.values()))
        lines.append(",".join(map(str, cells)))
    (path / "captions.csv").write_text("\n".join(lines) + "\n")
    return path


def write_shard(path, count, seed):
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            for kind, content in (
                ("png", image_bytes(rng)),
                ("txt", caption(path.stem, number).encode()),
            ):
                info = tarfile.TarInfo(f"{number:04}.{kind}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Targets with a damaged image, a shard of non-members, unlabelled pairs."""
    home = tmp_path_factory.mktemp("sets")
    targets = write_folder(home / "targets", 60, 0)
    (targets / "7.png").write_bytes((targets / "7.png").read_bytes()[:90])
    # a near-duplicate of a target, under another caption, and a target's caption
    shutil.copy(targets / "3.png", home / "copy.png")
    others = write_shard(home / "others.tar", 210, 1)
    unlabeled = write_folder(home / "unlabeled", 130, 2)
    shutil.copy(targets / "3.png", unlabeled / "5.png")
    table = unlabeled / "captions.csv"
    wanted = f"The {caption('targets', 4)}!"
    table.write_text(table.read_text().replace(caption("unlabeled", 9), wanted))
    return {"--targets": targets, "--nonmembers": others, "--unlabeled": unlabeled}


def arguments(checkpoint, sets, output, *more):
    given = [part for pair in sets.items() for part in pair]
    return ("membership", "--model", checkpoint, *given, "--output", output, "--no-progress", *more)


ALL = ("--draws", 1, "--attack-seeds", 2, "--threshold-std", -2, "--batch-size", 16)


@pytest.fixture(scope="module")
def done(checkpoint, sets, tmp_path_factory):
    from typer.testing import CliRunner

    from jaxinf.cli.app import app

    output = tmp_path_factory.mktemp("out") / "found"
    args = arguments(checkpoint, sets, output, *ALL)
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return output, result.output


def scores(output):
    return pq.read_table(output / "scores.parquet").to_pydict()


def test_scores_are_the_librarys(done, checkpoint, sets):
    found = scores(done[0])
    assert {"set", "file", "caption", "csa", "aea", "wsa", "csa_flagged"} <= set(found)
    model, preprocess, tokenize = load(checkpoint)
    rows = [row for row, name in enumerate(found["set"]) if name == "targets"]
    assert len(rows) == 59
    images = [Image.open(sets["--targets"] / found["file"][row]) for row in rows]
    want = cosine_similarity_attack(
        model.encode_image(preprocess(images)),
        model.encode_text(tokenize([found["caption"][row] for row in rows])),
    )
    np.testing.assert_allclose([found["csa"][row] for row in rows], want, atol=1e-5)
    aea = np.array([found["aea"][row] for row in rows])
    assert np.abs(aea - np.asarray(want)).max() > 1e-4


def test_what_wsa_learnt_from_has_no_score_of_it(done):
    found = scores(done[0])
    empty = dict.fromkeys(("targets", "nonmembers", "unlabeled"), 0)
    for name, score in zip(found["set"], found["wsa"], strict=True):
        empty[name] += score is None
    assert empty == {"targets": 0, "nonmembers": 105, "unlabeled": 128}


def test_a_damaged_image_is_left_out_counted_and_named(done):
    output, said = done
    gone = pyarrow.csv.read_csv(output / "dropped.csv").to_pylist()
    assert [row for row in gone if row["set"] == "targets"] == [
        {"set": "targets", "file": "7.png", "reason": gone[0]["reason"]}
    ]
    assert gone[0]["reason"].startswith("unreadable (")
    assert "targets: 1 images could not be read and were left out (7.png)" in said
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "7.png" in page
    assert "unreadable (" in page


def test_shared_captions_and_images_are_counted_and_dropped(done):
    output, said = done
    assert "1 of targets and 1 of unlabeled share their captions" in said
    assert "1 of targets and 1 of unlabeled share their images" in said
    gone = pyarrow.csv.read_csv(output / "dropped.csv").to_pylist()
    reasons = {row["file"]: row["reason"] for row in gone if row["set"] == "unlabeled"}
    assert reasons == {"9.png": "captions also in targets", "5.png": "images also in targets"}


def test_an_untrained_model_shows_no_membership(done):
    output, said = done
    assert "no evidence of membership" in said
    page = (output / "report.html").read_text(encoding="utf-8")
    for text in ("No evidence of membership", "bag of words", "untrained encoder", "oracle"):
        assert text in page
    assert "no TPR at 1 % FPR" in said


def test_the_same_line_goes_on_where_a_kill_stopped_it(
    done, checkpoint, sets, call, monkeypatch, tmp_path
):
    output = tmp_path / "again"
    shutil.copytree(done[0] / "features", output / "features")
    # as a kill leaves it: one set whole, one without its last chunk, one not begun
    (output / "features" / "nonmembers" / "scores" / "c" / "0" / "1").unlink()
    shutil.rmtree(output / "features" / "unlabeled")
    encoded = {"targets": set(), "nonmembers": set(), "unlabeled": set()}
    read = membership_rows.ImageRows.read

    def noted(self, start, stop):
        if stop - start > 1:  # single rows are the samples by which a store knows its own
            encoded[self._pairs.name] |= set(range(start, stop))
        return read(self, start, stop)

    monkeypatch.setattr(membership_rows.ImageRows, "read", noted)
    result = call(*arguments(checkpoint, sets, output, *ALL, "--no-report"))
    assert result.exit_code == 0, result.output
    assert scores(output) == scores(done[0])
    assert not (output / "report.html").exists()
    assert encoded == {
        "targets": set(),
        "nonmembers": set(range(8 * 16, 210)),
        "unlabeled": set(range(8 * 16)),  # and one row alone
    }
    # other settings are another run
    other = arguments(checkpoint, sets, output, *ALL[2:], "--draws", 2)
    refused = call(*other)
    assert refused.exit_code == 2
    assert "belongs to" in refused.stderr or "differs" in refused.stderr


def test_the_tables_own_truth_is_judged_by(call, checkpoint, sets, tmp_path):
    member = np.arange(50) % 2 == 0
    targets = write_folder(tmp_path / "known", 50, 3, columns={"is_member": member})
    output = tmp_path / "out"
    given = {"--targets": targets, "--nonmembers": sets["--nonmembers"]}
    more = ("--attack", "csa", "--no-near-duplicates", "--batch-size", 16)
    result = call(*arguments(checkpoint, given, output, *more, "--reference", checkpoint))
    assert result.exit_code == 0, result.output
    found = scores(output)
    assert "aea" not in found
    # the same model cancels itself, and is no better than itself
    np.testing.assert_allclose(found["csa_less_reference"], 0, atol=1e-6)
    assert "another model's CSA" in (output / "report.html").read_text(encoding="utf-8").replace(
        "&#39;", "'"
    )
    truth = [mark for mark in found["is_member"] if mark is not None]
    assert truth == member.tolist()
    assert "25) and which are not (25)" in (output / "report.html").read_text(encoding="utf-8")


def refuse(refused, checkpoint, sets, tmp_path, *more, **changed):
    given = sets | {f"--{name}": path for name, path in changed.items()}
    given = {name: path for name, path in given.items() if path is not None}
    model = given.pop("--model", checkpoint)
    line = refused(*arguments(model, given, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()
    return line


def test_what_cannot_be_judged_is_refused_before_any_work(refused, checkpoint, sets, tmp_path):
    few = write_folder(tmp_path / "few", 19, 4)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "a.png").write_bytes((few / "0.png").read_bytes())
    long = write_folder(tmp_path / "long", 25, 5)
    table = long / "captions.csv"
    table.write_text(table.read_text().replace(caption("long", 3), "word " * 30))
    false = write_folder(tmp_path / "false", 25, 6, columns={"is_member": [False] * 25})
    args = (refused, checkpoint, sets, tmp_path)
    assert "no such file or folder" in refuse(*args, model=tmp_path / "absent")
    assert "no such file or folder" in refuse(*args, targets=tmp_path / "absent")
    assert "has no captions" in refuse(*args, targets=bare)
    assert "--attack magic is unknown" in refuse(*args, "--attack", "magic")
    assert "give them by --unlabeled" in refuse(*args, "--attack", "wsa", unlabeled=None)
    assert "--targets has 19 pairs: at least 20" in refuse(*args, targets=few)
    line = refuse(*args, nonmembers=few)
    assert "--nonmembers has 19 pairs: at least 200 are needed for wsa" in line
    assert "--draws is 0" in refuse(*args, "--draws", 0)
    line = refuse(*args, nonmembers=long, unlabeled=None)
    assert "1 captions are longer than the model's 12 tokens, first that of 3.png" in line
    assert "--truncate" in line
    assert "is_member is false in every row" in refuse(*args, targets=false)
    line = refuse(*args, nonmembers=sets["--targets"], unlabeled=None)
    assert "--targets has 0 pairs, after 60 were left out" in line


def test_long_captions_are_cut_where_asked(checkpoint):
    from jaxinf.cli.membership_pairs import Pairs, Place
    from jaxinf.cli.membership_rows import tokenize_sets

    tokenize = load(checkpoint).tokenize
    captions = ("word " * 30, "a red dog", " ".join("abcdefghij"))
    made = Pairs("targets", ("a", "b", "c"), captions, (Place(checkpoint),) * 3)
    (tokens,) = tokenize_sets([made], tokenize, truncate=True)
    np.testing.assert_array_equal(tokens, tokenize(captions, truncate=True))
    (short,) = tokenize_sets([made.take([1])], tokenize, truncate=False)
    np.testing.assert_array_equal(short, tokens[1:2, :5])


def test_images_none_of_which_can_be_read_are_refused(refused, checkpoint, sets, tmp_path):
    targets = write_folder(tmp_path / "broken", 20, 7)
    for file in targets.glob("*.png"):
        file.write_bytes(b"no image")
    given = {"--targets": targets, "--nonmembers": sets["--nonmembers"]}
    more = ("--attack", "csa", "--no-near-duplicates", "--batch-size", 16)
    line = refused(*arguments(checkpoint, given, tmp_path / "out", *more))
    assert "--targets: none of the 20 images can be read" in line


def test_every_option_has_a_sentence_and_the_command_an_example():
    import typer

    from jaxinf.cli.app import app

    command = typer.main.get_command(app).commands["membership"]
    assert "jaxinf membership" in command.epilog
    for parameter in command.params:
        if parameter.name != "help":
            assert (parameter.help or "").endswith((".", ")")), parameter.name
