"""Sets of pairs as they lie on disk: tables, folders, shards, and what is wrong with them."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxinf.cli.membership_choices import Attack, chosen_attacks
from jaxinf.cli.membership_overlaps import reasons_to_drop, shared_images, shared_texts
from jaxinf.cli.membership_pairs import Pairs, Place, read_pairs
from jaxinf.errors import InputError


def png(shade=0):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "set"
    (home / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        (home / name).write_bytes(png())
    return home


def test_a_folder_with_a_table_of_each_kind(folder):
    rows = [
        {"file": "a.png", "caption": "one", "url": "http://a"},
        {"file": "deep/b.png", "caption": "two", "url": None},
        {"file": "gone.png", "caption": "three", "url": "http://c"},
    ]
    (folder / "captions.csv").write_text(
        "file,caption,url\na.png,one,http://a\ndeep/b.png,two,\ngone.png,three,http://c\n"
    )
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    for path in (folder, folder / "t.jsonl", folder / "t.parquet"):
        found = read_pairs(path, "targets")
        assert found.files == ("a.png", "deep/b.png")
        assert found.captions == ("one", "two")
        assert found.urls == ("http://a", "")
        assert found.is_member is None
        assert found.dropped == (("gone.png", "no such file"),)
        assert found.places[0].read() == png()


def test_one_table_for_several_folders(folder, tmp_path):
    table = tmp_path / "all.csv"
    table.write_text("file_name,text,is_member\na.png,one,true\nelse.png,two,false\n")
    found = read_pairs(folder, "targets", table)
    assert found.files == ("a.png",)
    assert found.dropped == ()
    assert found.is_member is not None
    assert found.is_member.tolist() == [True]


def test_shards_pair_files_of_one_stem(tmp_path):
    described = {"caption": "from json", "url": "http://x", "is_member": 1}
    write_tar(
        tmp_path / "0.tar",
        {
            "x/000.png": png(10),
            "x/000.txt": b"first ",
            "x/001.png": png(20),
            "x/001.json": json.dumps(described).encode(),
            "lonely.txt": b"no image",
            "bare.png": png(30),
        },
    )
    write_tar(tmp_path / "1.tar", {"y.jpg": b"JPEG", "y.caption": b"third"})
    found = read_pairs(tmp_path, "nonmembers")
    assert found.files == ("0.tar/x/000", "0.tar/x/001", "1.tar/y")
    assert found.captions == ("first", "from json", "third")
    assert found.urls == ("", "http://x", "")
    assert found.is_member is None  # not every pair says
    assert found.dropped == (("0.tar/lonely", "no image"), ("0.tar/bare", "no caption"))
    assert [place.read() for place in found.places] == [png(10), png(20), b"JPEG"]


def test_a_shard_that_is_cut_short_is_read_as_far_as_it_goes(tmp_path):
    files = {
        f"{n}.{kind}": content
        for n in range(9)
        for kind, content in (("png", png(n)), ("txt", b"caption"))
    }
    whole = write_tar(tmp_path / "s.tar", files).read_bytes()
    # a member's header and its data take 512 bytes each here; cut within the data of the 7th
    (tmp_path / "s.tar").write_bytes(whole[: 6 * 1024 + 300])
    found = read_pairs(tmp_path / "s.tar", "targets")
    assert found.files == ("s.tar/0", "s.tar/1", "s.tar/2")
    assert any("cut short" in reason for _, reason in found.dropped)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "has no captions: put a table captions.csv"),
        ("file,caption\n", "has no rows"),
        ("picture,caption\na.png,x\n", "none of picture, caption is known for images"),
        ("file,words\na.png,x\n", "is known for captions"),
        ("file,caption\ngone.png,x\n", r"has no image \(gone.png: no such file\)"),
        ("file,caption\na.png,x\ndeep/b.png, \n", "1 captions are empty, first that of deep/b.png"),
        ("file,caption,is_member\na.png,x,maybe\n", "is_member must be true or false"),
    ],
)
def test_tables_that_cannot_be_used(folder, content, reason):
    if content is not None:
        (folder / "captions.csv").write_text(content)
    with pytest.raises(InputError, match=reason):
        read_pairs(folder, "targets")


def test_paths_that_are_no_set(tmp_path):
    (tmp_path / "note.md").write_text("")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    (tmp_path / "bad.tar").write_bytes(b"no tar at all")
    for name, reason in (
        ("absent", "no such file or folder"),
        ("note.md", "is no set of pairs"),
        ("bad.parquet", "cannot be read"),
        ("bad.tar", r"has no image \(bad.tar: cut short or no tar file"),
    ):
        with pytest.raises(InputError, match=reason):
            read_pairs(tmp_path / name, "targets")


def pairs(name, captions, urls=None):
    files = tuple(f"{n}.png" for n in range(len(captions)))
    places = tuple(Place(tmp) for tmp in files)
    return Pairs(name, files, tuple(captions), places, urls)


def test_what_targets_share_with_nonmembers_goes_from_both_and_unlabelled_alone_otherwise():
    sets = {
        "targets": pairs("targets", ["A dog, 2", "cat", "cow"], ("u", "", "v")),
        "nonmembers": pairs("nonmembers", ["the dog", "hen", "fox"], ("", "v", "w")),
        "unlabeled": pairs("unlabeled", ["fox!", "cat", "owl"]),
    }
    shared = shared_texts(sets)
    assert [str(each) for each in shared if each.any] == [
        "1 of targets and 1 of nonmembers share their captions",
        "1 of targets and 1 of nonmembers share their URLs",
        "1 of targets and 1 of unlabeled share their captions",
        "1 of nonmembers and 1 of unlabeled share their captions",
    ]
    assert reasons_to_drop(shared) == {
        "targets": {0: "captions also in nonmembers", 2: "URLs also in nonmembers"},
        "nonmembers": {0: "captions also in targets", 1: "URLs also in targets"},
        "unlabeled": {1: "captions also in targets", 0: "captions also in nonmembers"},
    }
    left = sets["targets"].drop(reasons_to_drop(shared)["targets"])
    assert (left.files, left.captions, left.urls) == (("1.png",), ("cat",), ("",))
    assert left.dropped == (
        ("0.png", "captions also in nonmembers"),
        ("2.png", "URLs also in nonmembers"),
    )


def test_images_that_look_alike_are_found():
    hashes = {"targets": np.uint64([0, 2**64 - 1]), "nonmembers": np.uint64([255 << 20, 1])}
    (shared,) = shared_images(hashes)
    assert reasons_to_drop([shared]) == {
        "targets": {0: "images also in nonmembers"},
        "nonmembers": {1: "images also in targets"},
    }


def test_attacks_by_name():
    assert chosen_attacks(None, False) == (Attack.CSA, Attack.AEA)
    assert chosen_attacks(None, True) == (Attack.CSA, Attack.AEA, Attack.WSA)
    assert chosen_attacks(["WSA", "csa"], True) == (Attack.CSA, Attack.WSA)
    for typed, reason in (
        (["csa,magic"], "--attack magic is unknown: choose from csa, aea, wsa"),
        (["wsa"], "give them by --unlabeled"),
        ([","], "names nothing"),
    ):
        with pytest.raises(InputError, match=reason):
            chosen_attacks(typed, False)
