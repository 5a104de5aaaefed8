"""weights/hub.py without a network: folders that rebuild their model bit for bit, cards, a pretended Hub, refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

from s4d_lib.checkpoints.loading import load_model
from s4d_lib.layers.masking import random_mask
from s4d_lib.models.autoencoder import DualModalEncoder, DualModalMAE
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.s2d import S2DClassifier
from s4d_lib.models.sizes import Size
from s4d_lib.weights.files import read_metadata, save_model

WIDE = Size((10, 15), 4, 5, 2, dim=24, depth=2, heads=2, decoder_dim=18, decoder_depth=1, decoder_heads=3)
CLIP = torch.linspace(-1, 1, 2 * 3 * 4 * 10 * 15).view(2, 3, 4, 10, 15)
LANDMARKS = torch.linspace(-1, 1, 8 * 6 * 2 * 3).view(8, 6, 2, 3)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def classifier(**settings) -> S4DClassifier:
    torch.manual_seed(0)
    settings = {"classes": {"image": 5, "video": 3}, "moae_blocks": (1,), "experts": 4, **settings}
    return S4DClassifier(WIDE, **settings).eval()


def s2d() -> S2DClassifier:
    torch.manual_seed(0)
    return S2DClassifier(3, image_size=(10, 15), frames=4, patch=5, dim=24, depth=2, heads=2, landmark_channels=6,
                         adapter_ratio=0.5, temporal_heads=2).eval()


def mae() -> DualModalMAE:
    torch.manual_seed(0)
    return DualModalMAE(WIDE, target_epsilon=0.01).eval()


def encoder() -> DualModalEncoder:
    torch.manual_seed(0)
    return DualModalEncoder(WIDE).eval()


@torch.no_grad()
def answer(model: torch.nn.Module) -> torch.Tensor:
    """What a model makes of the clip."""
    if isinstance(model, DualModalMAE):
        return model(CLIP, random_mask(2, WIDE.grid, 0.5, torch.Generator().manual_seed(0))).prediction
    return model(CLIP, LANDMARKS) if isinstance(model, S2DClassifier) else model(CLIP)


EVERY = pytest.mark.parametrize("make", [classifier, mae, encoder, s2d])


@EVERY
def test_a_folder_gives_the_model_back(make, tmp_path):
    model = make()
    model.metadata = {"licence": "CC0-1.0", "uar": 0.5}
    model.save_pretrained(tmp_path / "model")
    assert sorted(os.listdir(tmp_path / "model")) == ["README.md", "config.json", "model.safetensors"]
    twin = type(model).from_pretrained(tmp_path / "model")
    assert type(twin) is type(model) and twin.config == model.config and not twin.training
    assert torch.equal(answer(twin), answer(model)) and twin.metadata == model.metadata
    # The weights are a checkpoint like any other of this library.
    assert torch.equal(answer(load_model(tmp_path / "model" / "model.safetensors")), answer(model))
    described = json.loads((tmp_path / "model" / "config.json").read_text())
    assert described.pop("model") == type(model).__name__
    assert answer(type(model)(**described)).shape == answer(model).shape


@pytest.mark.spawns
def test_a_fresh_interpreter_gives_the_same_logits(tmp_path):
    """Nothing but the folder passes between the two."""
    model = classifier(pool="positions")
    model.save_pretrained(tmp_path / "model")
    code = ("import sys, torch; from s4d_lib.models.classifier import S4DClassifier; torch.set_num_threads(1)\n"
            "model = S4DClassifier.from_pretrained(sys.argv[1])\n"
            "clip = torch.linspace(-1, 1, 2 * 3 * 4 * 10 * 15).view(2, 3, 4, 10, 15)\n"
            "print(model.size.image_size, [value.hex() for value in model(clip).flatten().tolist()])")
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True)
    assert said.stdout.strip() == f"(10, 15) {[value.hex() for value in answer(model).flatten().tolist()]}", said.stderr


def test_arguments_can_be_changed_on_the_way_in(tmp_path):
    classifier().save_pretrained(tmp_path)
    model = S4DClassifier.from_pretrained(tmp_path, behaviour="reference", capacity_factor=0.5, map_location="cpu")
    assert model.config["behaviour"] == "reference" and model.config["capacity_factor"] == 0.5


def test_what_is_known_of_a_model_is_its_own():
    one, other = classifier(), classifier()
    one.metadata["licence"] = "CC0-1.0"
    assert other.metadata == {} and "licence" in one.metadata and "metadata" not in one.state_dict()


def test_tensors_that_started_fresh_are_saved_once_they_are_here(tmp_path):
    """A converted encoder names the heads it lacks; the model loaded from it has heads, and may have trained them."""
    model = classifier()
    missing = [key for key in model.state_dict() if key.startswith("head.")]
    save_model(tmp_path / "model.safetensors", model, {"missing": missing, "source": "x.pt"})
    with pytest.warns(UserWarning, match="fresh values"):
        loaded = S4DClassifier.from_pretrained(tmp_path)
    torch.nn.init.ones_(loaded.head["video"].weight)
    loaded.save_pretrained(tmp_path / "again")
    again = S4DClassifier.from_pretrained(tmp_path / "again")
    assert (again.head["video"].weight == 1).all()
    assert again.metadata["source"] == "x.pt" and "started fresh" in again.metadata["note"]


# Cards --------------------------------------------------------------------------------------------------------------

@EVERY
def test_a_card_says_what_a_reader_must_know(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    kind, text = type(model).__name__, " ".join(card.text.split())
    arxiv = "2312.05447" if kind == "S2DClassifier" else "2409.06154"
    assert card.data.library_name == "s4d_lib" and f"arxiv:{arxiv}" in card.data.tags and card.data.license is None
    assert card.data.pipeline_tag == ("video-classification" if kind.endswith("Classifier") else None)
    for said in (f"# {kind}", f"https://arxiv.org/abs/{arxiv}", "`[b 3 4 10 15]`", "(0.485, 0.456, 0.406)",
                 f"{kind}.from_pretrained(", "Licence: not recorded",
                 "*apparent*", "not what a person feels", "Do not use it to judge people", "drawn faces alone"):
        assert said in text, said
    assert ("Images `[b 3 10 15]`" in text) is (kind != "S2DClassifier")
    [line] = [line for line in card.text.splitlines() if line.startswith("from ")]
    imported: dict[str, object] = {}
    exec(line, imported)
    assert imported[kind] is type(model)


def test_a_card_imports_from_the_package_and_not_from_a_file_inside_it(monkeypatch):
    """Files inside a package move; what a card of today says must load tomorrow."""
    monkeypatch.setattr(S4DClassifier, "__module__", "s4d_lib.models.sizes")
    assert "\nfrom s4d_lib.models import S4DClassifier\n" in str(classifier().generate_model_card())


def test_a_card_names_behaviour_classes_and_provenance():
    text = " ".join(str(classifier().generate_model_card(
        source="released.pt", source_sha256="0f" * 32, licence="S4D is released under Apache-2.0",
        class_names={"video": ["happy", "sad", "neutral"]})).split())
    for said in ("Blocks 1 (from 0) hold 4 adapter experts each, of which a token uses 2",
                 "Behaviour `clean`: noise and expert capacity act while training only", "image: 5 classes",
                 "video: 3 classes (happy, sad, neutral)", "The order of the classes is that of the data set",
                 "Converted from: released.pt", "0f0f", "Licence: S4D is released under Apache-2.0"):
        assert said in text, said
    assert "Licence: not recorded" not in text
    reference = " ".join(str(classifier(behaviour="reference").generate_model_card()).split())
    assert "depends on chance" in reference and "while training only" not in reference
    plain = str(classifier(moae_blocks=()).generate_model_card())
    assert "adapter experts" not in plain, "the control: a model without experts claims none"
    assert "it has no head" in str(classifier(classes={}).generate_model_card())
    assert "landmark features of every frame" in str(s2d().generate_model_card())


def test_the_card_of_the_shipped_model_names_its_training_run(tmp_path):
    from s4d_lib.weights.files import SHIPPED

    (tmp_path / "model.safetensors").write_bytes(SHIPPED["encoder"].read_bytes())
    text = str(DualModalMAE.from_pretrained(tmp_path).generate_model_card())
    assert "Training run: `shipped_encoder`, stage pretrain" in text and "`[b 3 8 48 48]`" in text


def test_a_card_that_someone_wrote_stays(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nmine")
    classifier().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text().endswith("mine")


# The Hub ------------------------------------------------------------------------------------------------------------

def test_pushing_uploads_a_folder_that_loads(monkeypatch, tmp_path):
    seen = {}

    class Api:
        def __init__(self, token=None):
            seen["token"] = token

        def create_repo(self, repo_id, private=None, exist_ok=False):
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id, folder_path, **more):
            seen.update(repo=repo_id, files=sorted(os.listdir(folder_path)), message=more["commit_message"],
                        model=S4DClassifier.from_pretrained(folder_path),
                        card=Path(folder_path, "README.md").read_text())
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    model = classifier()
    url = model.push_to_hub("someone/faces", token="t", commit_message="first",
                            model_card_kwargs={"licence": "CC0-1.0"})
    assert url == "https://hub/commit" and (seen["repo"], seen["token"], seen["message"]) == (
        "someone/faces", "t", "first")
    assert seen["files"] == ["README.md", "config.json", "model.safetensors"] and "Licence: CC0-1.0" in seen["card"]
    assert torch.equal(answer(seen["model"]), answer(model))
    assert model.save_pretrained(tmp_path / "faces", push_to_hub=True, repo_id="someone/other") == "https://hub/commit"
    assert seen["repo"] == "someone/other"


def test_a_repository_is_fetched_by_its_name(monkeypatch, tmp_path):
    model, asked = classifier(), {}
    path = save_model(tmp_path / "cache" / "blob.safetensors", model)

    def download(name, filename, **how):
        asked.update(how, name=name, filename=filename)
        return str(path)

    monkeypatch.setattr("s4d_lib.weights.hub.hf_hub_download", download)
    twin = S4DClassifier.from_pretrained("someone/faces", revision="v2", token="t")
    assert torch.equal(answer(twin), answer(model))
    assert (asked["name"], asked["filename"], asked["revision"], asked["token"]) == (
        "someone/faces", "model.safetensors", "v2", "t")


def test_no_such_folder_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder, and a Hub repository is named"):
        S4DClassifier.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="runs/faces: there is no such folder, and no model.safetensors could"):
        S4DClassifier.from_pretrained("runs/faces", cache_dir=tmp_path)  # offline: nothing is asked


@pytest.mark.parametrize("error", [
    LocalEntryNotFoundError("offline"),
    RemoteEntryNotFoundError("no such file", response=SimpleNamespace(headers={}, request=None, status_code=404)),
])
def test_a_repository_without_weights_is_said_so(monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("s4d_lib.weights.hub.hf_hub_download", refuse)
    with pytest.raises(FileNotFoundError, match=f"someone/faces.*{type(error).__name__}.*check the name"):
        S4DClassifier.from_pretrained("someone/faces")


def test_a_folder_without_weights_is_said_so(tmp_path):
    classifier().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors; give the folder that save_pretrained"):
        S4DClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize("make, asked, found", [
    (mae, S4DClassifier, "DualModalMAE"), (classifier, DualModalMAE, "S4DClassifier"),
    (encoder, S4DClassifier, "DualModalEncoder"), (s2d, S4DClassifier, "S2DClassifier"),
])
def test_the_wrong_class_is_told_which_is_right(make, asked, found, tmp_path):
    make().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=f"holds a {found} and not a {asked.__name__}; use {found}.from_pretrained"):
        asked.from_pretrained(tmp_path)


def test_heads_that_were_replaced_are_the_ones_that_come_back(tmp_path):
    model = classifier()
    model.reset_classifier({"video": 6}, "positions")
    model.save_pretrained(tmp_path)
    twin = S4DClassifier.from_pretrained(tmp_path)
    assert torch.equal(answer(twin), answer(model.eval())) and twin.num_classes == 6
    assert read_metadata(tmp_path / "model.safetensors") == {}
