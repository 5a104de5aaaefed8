"""timm.create_model for this library's names, and the import that makes timm know them, each in a fresh Python."""

import json
import subprocess
import sys

import pytest
import timm
import torch

import s4d_lib  # noqa: F401 - this import is what registers the models
from s4d_lib import registry
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.s2d import S2D_SIZES
from s4d_lib.models.sizes import SIZES
from s4d_lib.weights.containers import BadCheckpoint
from s4d_lib.weights.files import SHIPPED, save_model

NAMES = ["s4d_vit_base_patch16_160", "s4d_vit_large_patch16_160", "s4d_vit_small_patch16_160",
         "s4d_vit_tiny_patch8_48", "s4d_vit_tiny_patch16_160"]
TINY = "s4d_vit_tiny_patch8_48"
S2D_NAMES = ["s2d_vit_base_patch16_224", "s2d_vit_small_patch16_224", "s2d_vit_tiny_patch8_48"]
UNILEARN = "unilearn_vit_base_patch16_160"


def fresh(code: str) -> list:
    """What a new interpreter prints last, as JSON. A warning about registration is an error there."""
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", f"import json, sys\n{code}"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


BUILD = f"""
model = timm.create_model("{TINY}", num_classes=3)
print(json.dumps([type(model).__name__, len(timm.list_models("s?d_vit*")), *seen]))
"""


@pytest.mark.spawns
def test_the_library_first_and_then_timm():
    seen = """
import s4d_lib
seen = [name in sys.modules for name in ("timm", "torch", "numpy", "s4d_lib.registry")]
import timm
loader = timm.__spec__.loader
seen += [type(loader).__name__, loader is timm.__loader__]
try:
    import timm.nothing
except ModuleNotFoundError as error:
    seen.append(error.name)
"""
    assert fresh(seen + BUILD) == [
        "S4DClassifier", 8, *[False] * 4, "SourceFileLoader", True, "timm.nothing"], "and timm is left as it was"


@pytest.mark.spawns
def test_timm_first_and_then_the_library():
    seen = "import timm\nseen = timm.list_models('s?d_vit*')\nimport s4d_lib"
    assert fresh(seen + BUILD) == ["S4DClassifier", 8], "and the control: before, timm knew none of them"


@pytest.mark.spawns
@pytest.mark.parametrize("module", ["layers.encoder", "registry"])
def test_a_part_of_the_library_that_itself_imports_timm(module):
    assert fresh(f"import s4d_lib.{module}\nseen = []\nimport timm\n{BUILD}") == ["S4DClassifier", 8]


@pytest.mark.spawns
def test_a_library_that_cannot_register_does_not_take_timm_away():
    known, said = fresh("""
import warnings
sys.modules["s4d_lib.registry"] = None
import s4d_lib
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import timm
print(json.dumps([len(timm.list_models()), [str(warning.message) for warning in seen]]))
""")
    assert known > 500 and any("the models of s4d_lib are not in timm's registry" in line for line in said)


@pytest.mark.spawns
def test_the_library_does_not_need_timm_to_be_imported():
    assert fresh("sys.modules['timm'] = None\nimport s4d_lib\ntry:\n    import timm\n"
                 "except ImportError:\n    print(json.dumps('missing'))") == "missing"


def test_the_names():
    assert timm.list_models("s4d_*") == NAMES and timm.list_models("s2d_*") == S2D_NAMES
    assert timm.list_models("unilearn*") == [UNILEARN]
    assert timm.list_models("s?d_vit*", pretrained=True) == [TINY], "only weights that are here"
    registry.register()  # once more is no error and no warning


def on_paper(name: str, **settings) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **settings)


@pytest.mark.parametrize("name, parameters", [
    ("s4d_vit_base_patch16_160", 100_513_646), ("s4d_vit_small_patch16_160", 25_484_270),
    ("s4d_vit_large_patch16_160", 329_200_750), ("s2d_vit_base_patch16_224", 95_055_571), (UNILEARN, 100_513_646),
])
def test_a_timm_name_has_as_many_parameters_as_was_released(name, parameters):
    assert sum(p.numel() for p in on_paper(name).parameters()) == parameters


def test_unilearn_is_s4d_by_another_name_and_says_so():
    one, other = on_paper(UNILEARN, num_classes=11), on_paper("s4d_vit_base_patch16_160", num_classes=11)
    assert {key: value.shape for key, value in one.state_dict().items()} == {
        key: value.shape for key, value in other.state_dict().items()} and one.config == other.config
    assert "the same network as s4d_vit_base_patch16_160" in one.pretrained_cfg["notes"]
    assert one.pretrained_cfg["paper_ids"] == "arXiv:2409.06154v1", "the version of the paper that has this name"


@pytest.mark.parametrize("name", S2D_NAMES)
def test_s2d_comes_in_the_sizes_of_its_stages(name):
    size = S2D_SIZES[name.split("_")[2]]
    model = on_paper(name)
    assert {key: model.config[key] for key in size} == size and len(model.blocks) == size["depth"]
    assert model.pretrained_cfg["input_size"] == (3, size["image_size"], size["image_size"])


@pytest.mark.parametrize("name, blocks, experts", [
    ("s4d_vit_base_patch16_160", [6, 7, 8, 9, 10, 11], 8), ("s4d_vit_large_patch16_160", [6, 7, 8, 9, 10, 11], 8),
    ("s4d_vit_tiny_patch16_160", [6, 7, 8, 9, 10, 11], 8), (TINY, [2, 3], 8),
])
def test_experts_stand_where_the_released_model_has_them(name, blocks, experts):
    config = on_paper(name).config
    assert (config["moae_blocks"], config["experts"], config["top_k"], config["behaviour"]) == (
        blocks, experts, 2, "clean")
    assert on_paper(name, moae_blocks=(), behaviour="reference").config["moae_blocks"] == []


def test_vit_tiny_is_the_usual_one_in_the_papers_geometry():
    size = on_paper("s4d_vit_tiny_patch16_160").size
    assert (size.dim, size.depth, size.heads) == (192, 12, 3)
    assert (size.decoder_dim, size.decoder_depth, size.decoder_heads) == (96, 4, 3)
    assert (size.image_size, size.frames, size.patch, size.tubelet) == (160, 16, 16, 2)


def test_every_argument_arrives():
    model = on_paper("s4d_vit_base_patch16_160", num_classes={"video": 11}, img_size=(192, 128), num_frames=8,
                     patch_size=32, tubelet_size=4, drop_rate=0.3, global_pool="avg", in_chans=3,
                     moae_blocks="last_half", experts=4, top_k=1, capacity_factor=2.0, behaviour="reference",
                     positions="separable", depth=2)
    size = model.size
    assert (size.image_size, size.frames, size.patch, size.tubelet) == ((192, 128), 8, 32, 4)
    assert size.grid == (2, 6, 4) and size.positions == "separable" and len(model.blocks) == 2
    assert {key: value for key, value in model.config.items() if key != "size"} == {
        "classes": {"video": 11}, "moae_blocks": [1], "experts": 4, "top_k": 1, "capacity_factor": 2.0,
        "behaviour": "reference", "pool": "mean", "dropout": 0.3}
    assert model.default_cfg is model.pretrained_cfg and model.pretrained_cfg["input_size"] == (3, 192, 128)
    twin = on_paper("s4d_vit_base_patch16_160", classes={"image": 7, "video": 7}, pool="positions", dropout=0.1)
    assert twin.config["pool"] == "positions" and twin.config["dropout"] == 0.1 and twin.num_classes == 7


@pytest.mark.parametrize("count, classes", [(11, {"image": 11, "video": 11}), (0, {})])
@torch.no_grad()
def test_a_number_of_classes_goes_to_both_heads_and_none_gives_features(count, classes):
    model = timm.create_model(TINY, num_classes=count).eval()
    assert model.config["classes"] == classes and model.num_classes == count
    assert model(torch.randn(1, 3, 8, 48, 48)).shape == (1, count or 128)
    assert model(torch.randn(1, 3, 48, 48)).shape == (1, count or 128)


def test_what_timms_data_code_reads():
    model = timm.create_model(TINY, num_classes=5)
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (3, 48, 48) and data["mean"] == (0.485, 0.456, 0.406)
    assert data["std"] == (0.229, 0.224, 0.225) and data["crop_pct"] == 1.0 and data["interpolation"] == "bilinear"
    cfg = model.pretrained_cfg
    assert cfg["num_classes"] == 5 and cfg["architecture"] == TINY
    parameters = dict(model.named_parameters())
    assert f"{cfg['first_conv']}.weight" in parameters
    assert all(f"{head}.weight" in parameters for head in cfg["classifier"])
    s2d = on_paper("s2d_vit_base_patch16_224")
    assert s2d.pretrained_cfg["input_size"] == (3, 224, 224)
    assert f"{s2d.pretrained_cfg['classifier']}.weight" in dict(s2d.named_parameters())


def test_s2d_takes_timms_words_too():
    model = on_paper("s2d_vit_base_patch16_224", num_classes=11, img_size=(96, 128), num_frames=8, patch_size=32,
                     drop_rate=0.1, depth=2)
    changed = {"num_classes": 11, "image_size": (96, 128), "frames": 8, "patch": 32, "dropout": 0.1, "depth": 2}
    assert {key: model.config[key] for key in changed} == changed
    assert model.pretrained_cfg["input_size"] == (3, 96, 128) and model.pretrained_cfg["num_classes"] == 11
    with pytest.raises(TypeError, match="does not know experts; it knows"):
        on_paper("s2d_vit_base_patch16_224", experts=4)


@torch.no_grad()
def test_a_checkpoint_of_ours_loads_by_path(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(TINY, num_classes=4, experts=2).eval()
    path = save_model(tmp_path / "model.safetensors", model)
    torch.manual_seed(1)
    twin = timm.create_model(TINY, num_classes=4, experts=2, checkpoint_path=str(path)).eval()
    other = timm.create_model(TINY, num_classes=4, experts=2).eval()
    clip = torch.randn(2, 3, 8, 48, 48)
    assert torch.equal(twin(clip), model(clip)) and not torch.equal(other(clip), model(clip))
    with pytest.raises(RuntimeError, match="head.image.weight"):
        timm.create_model(TINY, num_classes=5, experts=2, checkpoint_path=str(path))


def test_the_shipped_encoder_is_what_pretrained_means():
    from safetensors.torch import load_file

    assert timm.get_pretrained_cfg(TINY).file == str(SHIPPED["encoder"])
    model, plain = timm.create_model(TINY, pretrained=True, num_classes=3), timm.create_model(TINY, num_classes=3)
    shipped = load_file(SHIPPED["encoder"])
    for name in ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.3.mlp.fc2.bias"):
        assert torch.equal(model.state_dict()[name], shipped[f"encoder.{name}"])
        assert not torch.equal(plain.state_dict()[name], shipped[f"encoder.{name}"])
    assert model.num_classes == 3
    assert timm.create_model(TINY, pretrained=True, img_size=(64, 40), num_frames=4).size.grid == (2, 8, 5)
    with pytest.raises(BadCheckpoint, match="patch_embed.proj.weight"):
        timm.create_model(TINY, pretrained=True, patch_size=16)
    for name in {*NAMES, *S2D_NAMES, UNILEARN} - {TINY}:
        with pytest.raises(ValueError, match=f"no weights of {name} come with this library.*s4d convert"):
            on_paper(name, pretrained=True)


@pytest.mark.parametrize("settings, said", [
    ({"drop_path_rate": 0.1}, "does not know drop_path_rate; it knows .*drop_rate"),
    ({"size": "base"}, "does not know size"),
    ({"img_size": 48, "image_size": 48}, "img_size and image_size are two names of one argument"),
    ({"num_classes": 3, "classes": {"video": 3}}, "num_classes and classes"),
    ({"in_chans": 1}, "reads 3 colour channels"),
])
def test_a_wrong_argument_of_create_model_is_named(settings, said):
    with pytest.raises(TypeError, match=said):
        timm.create_model(TINY, **settings)
    with pytest.raises(ValueError, match="image_size must be a multiple of patch, got 50 and 8"):
        timm.create_model(TINY, img_size=50)


def test_a_timm_model_is_one_of_ours():
    """The same seed draws the same weights by either name: key by key, and in the answers."""
    torch.manual_seed(0)
    model = timm.create_model(TINY, num_classes=5)
    torch.manual_seed(0)
    ours = S4DClassifier("tiny", {"image": 5, "video": 5}, moae_blocks="last_half")
    assert type(model) is S4DClassifier and model.size == SIZES["tiny"] and model.config == ours.config
    drawn, expected = model.state_dict(), ours.state_dict()
    assert drawn.keys() == expected.keys() and all(torch.equal(drawn[key], expected[key]) for key in expected)
    clip = torch.randn(2, 3, 8, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.eval()(clip), ours.eval()(clip))
    torch.manual_seed(0)
    plain = timm.create_model(TINY, num_classes=5, moae_blocks=())
    assert plain.config != ours.config and plain.state_dict().keys() < expected.keys(), "control: other settings arrive"
