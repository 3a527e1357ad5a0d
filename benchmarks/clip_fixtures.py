"""The fixtures of the CLIP tests, made by open_clip and transformers themselves.

    pip install open_clip_torch==3.3.0 transformers==5.23.0
    python -m benchmarks.clip_fixtures [FOLDER]

Tiny checkpoints with random weights in each layout, the features that the two libraries compute
from them (in float64), captions with open_clip's tokens, and pictures preprocessed by both.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "models" / "clip" / "fixtures"
VOCAB, CONTEXT = 99, 12

# text widths of 64 per head throughout: the first and the third are as OpenAI builds them
OPEN_CLIP: dict[str, dict[str, Any]] = {
    "vit_quick_gelu": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"width": 64, "heads": 1, "layers": 1},
    },
    "vit_gelu": {
        "embed_dim": 20,
        "vision_cfg": {
            "image_size": 24,
            "layers": 2,
            "width": 48,
            "head_width": 16,
            "patch_size": 8,
            "mlp_ratio": 2.5,
        },
        "text_cfg": {
            "width": 32,
            "heads": 4,
            "layers": 2,
            "mlp_ratio": 3.0,
            "norm_kwargs": {"eps": 1e-3},
        },
    },
    "resnet": {
        "embed_dim": 20,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 4, "patch_size": None},
        "text_cfg": {"width": 64, "heads": 1, "layers": 1},
    },
}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.25, 0.2]}
HUGGING_FACE: dict[str, dict[str, Any]] = {
    # a token of a larger id than the end token comes before it: the two poolings differ
    "hugging_face_end_token": {"hidden_act": "quick_gelu", "eos_token_id": 90, "eps": 1e-5},
    "hugging_face_largest_id": {"hidden_act": "gelu", "eos_token_id": 2, "eps": 1e-3},
}


def randomise(model: Any, seed: int) -> Any:
    """Give every parameter and statistic a value that shows when it is misread."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    draw = lambda tensor: torch.randn(tensor.shape, generator=generator)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or "mask" in name:
            continue
        if name.endswith("running_var"):
            value = 1 + 0.3 * draw(tensor).abs()
        elif tensor.ndim < 2:
            value = (1.0 if name.endswith("weight") else 0.0) + 0.2 * draw(tensor)
        else:
            value = draw(tensor) * tensor[0].numel() ** -0.5
        # halves, so that the files stay small
        tensor.data = value.half().float()
    return model.eval()


def inputs(image_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images float32[3, S, S, 3] and tokens int32[3, CONTEXT] ending in token 90 or 98."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(3, image_size, image_size, 3)).astype(np.float32)
    tokens = np.zeros((3, CONTEXT), np.int32)
    for row, length in zip(tokens, (4, 7, CONTEXT), strict=True):
        row[:length] = rng.integers(3, 90, length)
        row[length - 2 : length] = (98, 90)
    return images, tokens


def half(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict in half precision; `randomise` made sure that nothing is lost."""
    return {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def write_features(folder: Path, image_size: int, seed: int, encode: Any) -> None:
    """Write inputs and the features that `encode` makes of them, in float64."""
    import torch

    images, tokens = inputs(image_size, seed)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).double()
        image_features, text_features = encode(pixels, torch.from_numpy(tokens).long())
    np.savez_compressed(
        folder / "expected.npz",
        images=images,
        tokens=tokens,
        image_features=image_features.numpy(),
        text_features=text_features.numpy(),
    )


def open_clip_checkpoint(folder: Path, config: dict[str, Any], seed: int) -> None:
    """A checkpoint as open_clip's hub folders are."""
    import open_clip
    from safetensors.torch import save_file

    model_config = json.loads(json.dumps(config))
    model_config["text_cfg"] |= {"context_length": CONTEXT, "vocab_size": VOCAB}
    model = randomise(open_clip.model.CLIP(**json.loads(json.dumps(model_config))), seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(half(model.state_dict()), folder / "open_clip_model.safetensors")
    size = config["vision_cfg"]["image_size"]
    content = {"model_cfg": model_config, "preprocess_cfg": {"size": size, **PREPROCESS}}
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=1) + "\n")
    double = model.double()
    encode = lambda images, tokens: (double.encode_image(images), double.encode_text(tokens))
    write_features(folder, size, seed, encode)


def hugging_face_checkpoint(folder: Path, choice: dict[str, Any], seed: int) -> None:
    """A checkpoint as transformers saves it."""
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    shared = {
        "hidden_act": choice["hidden_act"],
        "layer_norm_eps": choice["eps"],
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 80,
    }
    config = CLIPConfig(
        projection_dim=20,
        text_config={
            **shared,
            "hidden_size": 32,
            "vocab_size": VOCAB,
            "max_position_embeddings": CONTEXT,
            "eos_token_id": choice["eos_token_id"],
        },
        vision_config={**shared, "hidden_size": 48, "image_size": 24, "patch_size": 8},
    )
    model = randomise(CLIPModel(config), seed)
    model.save_pretrained(folder)
    save_file(half(model.state_dict()), folder / "model.safetensors")
    processor = CLIPImageProcessor(
        size={"shortest_edge": 24},
        crop_size={"height": 24, "width": 24},
        image_mean=PREPROCESS["mean"],
        image_std=PREPROCESS["std"],
    )
    processor.save_pretrained(folder)
    double = model.double()
    features = lambda output: getattr(output, "pooler_output", output)
    write_features(
        folder,
        24,
        seed,
        lambda images, tokens: (
            features(double.get_image_features(pixel_values=images)),
            features(double.get_text_features(input_ids=tokens)),
        ),
    )


PIECES = [
    [
        "a photo of",
        "THE END",
        "Straße",
        "naïve café",
        "İstanbul",
        "ſtrange K",
        "ﬁne ﬂow",
        "x²",
        "½",
    ],
    ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷🇯🇵", "❤️", "☕", "1️⃣", "🧑🏿‍🚀"],
    [
        "&amp;",
        "&amp;amp;",
        "&lt;b&gt;",
        "&eacute;",
        "&amp;eacute;",
        "&#128512;",
        "&#x41;",
        "&nbsp;",
    ],
    ["中文字符", "日本語テスト", "한국어", "ไทย", "हिन्दी", "தமிழ்", "ქართული", "Ελληνικά", "Ёлка"],
    ["שלום עולם", "مرحبا بالعالم", "فارسی۱۲۳", "\u202eabc\u202c", "\u200fא", "لا إله"],
    ["1234567890", "3.14159", "1,000,000", "٣٤٥", "Ⅷ", "२०२४", "①②", "0x1F", "10²³", "1e-5"],
    [
        "don't",
        "I'M",
        "we'LL",
        "they've",
        "you're",
        "he'd",
        "it's",
        "''s",
        "'''",
        "o'clock",
        "’s",
        "'ſ",
    ],
    ["\x00", "\x07bell", "\u200b", "\ufeff", "\x85", "\x1f", "\u2028", "\u00ad", "\x7f", "\u180e"],
    ["â€™", "Ã©tÃ©", "â€œquotesâ€\x9d", "Ð¼Ð¸Ñ€", "ðŸ˜€", "ï¬\x81", "Â£5", "schÃ¶n", "l’Ã©tÃ©"],
    ["a\tb", "a\nb", "  two  ", "\u3000", "\u00a0", "tab\t\t", "\r\n", "\u2003em"],
    ["e\u0301", "n\u0303o", "a\u0308\u0323", "Z̷a̶l̴g̵o̸", "가", "Å", "\u1e9b\u0323", "ﷺ"],
    [
        "!!!???",
        "...---...",
        "#tag_with_underscore",
        "@user",
        "$#%^&*()",
        "~`|\\",
        "“”‘’«»",
        "—–‐",
        "¿¡",
    ],
    [
        "http://example.com/a?b=c&d=e",
        "me@mail.org",
        "C:\\dir",
        "<br/>",
        "```",
        "a_b__c",
        "snake_case",
    ],
    [
        "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
        "𝟘𝟙𝟚",
        "ｆｕｌｌｗｉｄｔｈ",
        "ＡＢＣ１２３",
        "ｶﾞ",
        "\U0001f9ff",
        "\U0010ffff",
        "\ue000",
    ],
    [
        "supercalifragilisticexpialidocious",
        "pneumonoultramicroscopic",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "zzz",
    ],
]


def awkward_captions(count: int = 320, seed: int = 0) -> list[str]:
    """Every piece alone, then random strings of pieces, some of them joined without a space."""
    rng = random.Random(seed)
    captions = [piece for pool in PIECES for piece in pool]
    while len(captions) < count:
        chosen = [rng.choice(rng.choice(PIECES)) for _ in range(rng.randint(2, 12))]
        captions.append("".join(piece + rng.choice(["", " ", " "]) for piece in chosen))
    captions += [("very " * 100).strip(), "😀" * 60, "中" * 90]
    return captions


def write_captions(folder: Path) -> None:
    """Captions with open_clip's tokens, cut to its context."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

    tokenize, clean = SimpleTokenizer(), get_clean_fn("lower")
    rows = []
    for caption in awkward_captions():
        if clean(caption):
            ids = tokenize([caption])[0].tolist()
            rows.append([caption, ids[: ids.index(tokenize.eot_token_id) + 1]])
    lines = ",\n".join(json.dumps(row) for row in rows)
    (folder / "captions.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(rows)} captions by open_clip {open_clip.__version__}")


def write_pictures(folder: Path) -> None:
    """Pictures wider than tall, which every version of Pillow resizes alike, preprocessed."""
    from open_clip.transform import image_transform
    from PIL import Image
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    rng, arrays = np.random.default_rng(0), {}
    ours = image_transform(16, is_train=False, mean=PREPROCESS["mean"], std=PREPROCESS["std"])
    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": 18},
        crop_size={"height": 16, "width": 16},
        image_mean=PREPROCESS["mean"],
        image_std=PREPROCESS["std"],
    )
    for index, (height, width) in enumerate([(16, 19), (23, 40), (9, 31), (30, 33)]):
        picture = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        arrays[f"picture_{index}"] = picture
        arrays[f"open_clip_{index}"] = ours(Image.fromarray(picture)).permute(1, 2, 0).numpy()
        pixels = theirs(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
        arrays[f"hugging_face_{index}"] = pixels.transpose(1, 2, 0)
    np.savez_compressed(folder / "pictures.npz", **arrays)


def main() -> None:
    """Write every fixture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for seed, (name, config) in enumerate(OPEN_CLIP.items()):
        open_clip_checkpoint(folder / name, config, seed)
    for seed, (name, choice) in enumerate(HUGGING_FACE.items(), start=len(OPEN_CLIP)):
        hugging_face_checkpoint(folder / name, choice, seed)
    write_captions(folder)
    write_pictures(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{size / 1e6:.2f} MB in {folder}")


if __name__ == "__main__":
    main()
