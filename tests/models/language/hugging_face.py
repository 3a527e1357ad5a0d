"""Tiny random checkpoints by the transformers library, and its logits for them.

python tests/models/language/hugging_face.py   # writes the fixtures anew
"""

from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures"
TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])


def config_of(kind, **changes):
    import transformers

    common = {"vocab_size": 24, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 12}
        return transformers.GPT2Config(**(common | sizes | changes))
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 12,
    }
    if kind == "gpt_neox":
        return transformers.GPTNeoXConfig(**(common | sizes | {"rotary_pct": 0.5} | changes))
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.LlamaConfig(**(common | sizes | changes))


def build(kind, folder, *, dtype=None, shard_size=None, **changes):
    """Save a random checkpoint; returns its logits for TOKENS, float32."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_of(kind, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too: all must find their place
            parameter.normal_(0, 0.3)
        if dtype is not None:
            model = model.to(getattr(torch, dtype))
        model.save_pretrained(folder, max_shard_size=shard_size or "1GB")
        return model(torch.tensor(TOKENS)).logits.float().numpy()


if __name__ == "__main__":
    for kind in ("gpt2", "gpt_neox", "llama"):
        logits = build(kind, FIXTURES / kind)
        np.save(FIXTURES / kind / "logits.npy", logits)
        (FIXTURES / kind / "generation_config.json").unlink(missing_ok=True)
