"""What "auto" means, what is refused, and that half precision answers as float32 does."""

import json

import pytest
import torch
from torch import nn

from s4d_lib import precision
from s4d_lib.errors import Refused
from s4d_lib.models import S4DClassifier
from s4d_lib.models.sizes import Size
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig

SIZE = Size(16, 4, 8, 2, 24, 2, 2, decoder_dim=16, decoder_depth=1, decoder_heads=2)


@pytest.mark.parametrize(("gain", "chosen"), [(0.03, "no"), (1.0, "no"), (2.5, "bf16")])
def test_auto_is_what_the_processor_is_fast_in(monkeypatch, gain, chosen):
    monkeypatch.setattr(precision, "bf16_gain", lambda: gain)
    assert precision.fastest("cpu") == chosen
    config = PretrainConfig(name="p", precision="auto", device="cpu")
    assert config.precision == chosen and "auto" not in json.dumps(config.model_dump(mode="json")["precision"])
    assert config.model_copy(update={"seed": 1}).precision == chosen
    assert FinetuneConfig(**FinetuneConfig(name="f", mode="dfer", precision="auto", device="cpu").model_dump()) \
        .precision == chosen, "what is stored is read back, not measured again"


@pytest.mark.parametrize(("has", "chosen"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu(monkeypatch, has, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert precision.fastest("cuda") == chosen


def test_the_gain_is_measured_once():
    assert precision.bf16_gain() == precision.bf16_gain() > 0


def test_a_precision_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="precision"):
        PretrainConfig(name="p", precision="bf15")


def test_halved_maps_answer_as_autocast_does():
    torch.manual_seed(0)
    model = S4DClassifier(SIZE, classes={"image": 7, "video": 7}, moae_blocks="last_half").eval()
    x, before = torch.randn(5, 3, 4, 16, 16), {name: value.clone() for name, value in model.state_dict().items()}
    twin = precision.halved(model, "bf16")
    kinds = {name: part.weight.dtype for name, part in twin.named_modules() if isinstance(part, nn.Linear)}
    assert {kind for name, kind in kinds.items() if "router" in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if "router" not in name} == {torch.bfloat16}
    with torch.inference_mode(), precision.computing("bf16", "cpu"):
        torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.inference_mode():
        assert not torch.equal(model(x), twin.float()(x)), "control: rounded weights answer otherwise"


def test_prediction_names_its_precision(s4d, tmp_path, numbered_frame):
    from PIL import Image

    from s4d_lib.predict import predict

    picture = tmp_path / "face.png"
    Image.fromarray(numbered_frame(3)).save(picture)
    plain, half = (predict(picture, crop="none", precision=one)[0] for one in ("no", "bf16"))
    assert (plain.computed_in, half.computed_in) == ("float32", "bfloat16")
    assert half.answer.best == plain.answer.best and half.answer.confidence != plain.answer.confidence
    with pytest.raises(Refused, match="precision is 'half'"):
        predict(picture, precision="half")
    with pytest.raises(Refused, match="fp16 needs a GPU"):
        predict(picture, precision="fp16", device="cpu")
    code, said, _ = s4d("predict", picture, "--no-crop", "--json", tmp_path / "out.json")
    assert code == 0 and "computed in float32" in said
    assert json.loads((tmp_path / "out.json").read_text())["files"][0]["computed_in"] == "float32"
