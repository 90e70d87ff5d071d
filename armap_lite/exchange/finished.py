"""Finished sequence-classification reward models, published or exported, used without training.

If the tokenizer has a chat template, the instruction is the user's turn and the rest of the transcript the assistant's,
as published reward models were trained. Otherwise the model reads the transcript as plain text, as exported models do.
"""

from typing import Any

from jinja2 import TemplateError
from torch import Tensor, nn

from armap_lite.llms import layers
from armap_lite.llms.device import load_to
from armap_lite.reward.config import RewardConfig
from armap_lite.reward.model import at_end
from armap_lite.storage.assets import ASSETS, pretrained, resolve_model
from armap_lite.trajectory import Trajectory, transcript
from armap_lite.vision.pictures import without_middle

LONGEST = 8192  # tokens, where neither tokenizer nor model states a limit


def is_classifier(spec: str) -> bool:
    """Whether `spec`, a folder or a Hugging Face id, is a sequence-classification model. Raises OSError offline."""
    from transformers import PretrainedConfig

    if spec in ASSETS or spec.endswith(".gguf"):
        return False
    settings, _ = PretrainedConfig.get_config_dict(resolve_model(spec))
    return any(name.endswith("ForSequenceClassification") for name in settings.get("architectures") or [])


class FinishedNetwork(nn.Module):
    """`forward(input_ids [B, T], attention_mask [B, T]) -> rewards [B]`, with the interface of `RewardNetwork`.

    `head` is the linear layer that reads the last attended token of `backbone`. It is None where the model computes
    its number in another way (an encoder, for example) and is therefore run as a whole.
    """

    pictures = None

    def __init__(self, model: Any, tokenizer: Any, name: str):
        super().__init__()
        if model.config.num_labels != 1:
            raise ValueError(f"{name} has {model.config.num_labels} labels; a reward model has one")
        self.model, self.backbone, self.tokenizer = model, model.base_model, tokenizer
        self.pad = model.config.get_text_config().pad_token_id
        score = getattr(model, "score", None)
        self.head = score if isinstance(score, nn.Linear) else None
        stated = min(filter(None, layers.context(model)), default=LONGEST)
        limit = min(tokenizer.model_max_length, stated, LONGEST)
        self.config = RewardConfig(backbone=name, num_layers=None, trainable="nothing", max_tokens=limit)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.head is None:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits[:, 0].float()  # [B]
        read = attention_mask if self.pad is None else attention_mask * (input_ids != self.pad)  # [B, T]; see `pooled`
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return at_end(self.head, states.last_hidden_state, read)

    def pooled(self, ids: list[int]) -> list[int]:
        """`ids` up to the token whose hidden state transformers reads: the last that is not padding.

        A text that ends in `eos` loses it here where the model pads with `eos`, as most chat models do.
        """
        last = max((i for i, token in enumerate(ids) if token != self.pad), default=0)
        return ids[: last + 1]

    def encode(self, instruction: str, trajectory: Trajectory) -> tuple[list[int], bool]:
        """The token ids of a trajectory, and whether it was too long and lost its middle."""
        text = transcript(trajectory, instruction)
        if getattr(self.tokenizer, "chat_template", None):
            asked, _, done = text.partition("\n")
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": done.rstrip("\n")}]
            try:
                ids = self.tokenizer.apply_chat_template(turns, return_dict=False)
            except TemplateError as error:
                raise ValueError(
                    f"the chat template of {self.config.backbone} refuses a user's and an assistant's turn ({error}); "
                    "correct the template, or remove it: the text is then read as it is"
                ) from error
        else:
            ids = self.tokenizer(text, verbose=False)["input_ids"]
        return without_middle(ids, self.config.max_tokens)


def load(spec: str, device: str = "auto", dtype: str = "auto") -> tuple[FinishedNetwork, Any]:
    """The finished reward model that the folder or Hugging Face id `spec` names, and its tokenizer.

    `device`: see `device.pick`; `dtype`: see `device.load_to`. Raises ValueError where it has more than one label.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = resolve_model(spec)
    tokenizer = AutoTokenizer.from_pretrained(path)

    def make(kind: Any) -> FinishedNetwork:
        model = pretrained(AutoModelForSequenceClassification, path, dtype=kind)
        layers.check_vocabulary(model, tokenizer)
        return FinishedNetwork(model, tokenizer, spec)

    return load_to(device, dtype, make), tokenizer
