"""choice → score     protocol_explorer: how far does a choice of protocol move the score of one and the same model?

Measured in chapter 02 on a frozen classifier, paired over the same clips; the rule for the epoch on the record of the
shipped classifier. Belongs to chapters 02 and 07.
"""

from __future__ import annotations

from typing import Any

from widgets.explorer import Explorer, dial, front, recorded, settle

FAMILIES = {"windows and views": 0, "order of frames": 9, "cropping": 16, "picture quality": 21, "colour and range": 26,
            "labels": 30, "short videos": 33}  # where each family starts among the 38 choices of the record
ELSEWHERE = {"the face's own box, margin 15 %": "cropping"}  # of clips cropped anew, so it was measured later
METRICS = {"war": "WAR", "uar": "UAR"}
RULES = {"best": "best on validation", "last": "last epoch", "half": "epoch at half time"}


class ProtocolExplorer(Explorer):
    """What a choice of protocol does to WAR and UAR. `ProtocolExplorer(family="labels", metric="uar")`."""

    name = "protocol_explorer"
    title = "The protocol is part of the score"
    question = "Which choices move the score of one frozen model, and by how much?"
    _esm = front("protocol_explorer")

    @classmethod
    def sources(cls) -> list[str]:
        return ["protocol_choices", "shipped_classifier"]

    @classmethod
    def record(cls) -> dict[str, Any]:
        """The differences of record `protocol_choices` and the epochs of record `shipped_classifier`."""
        from s4d_lib.records import results

        found, history = results("protocol_choices").results, results("shipped_classifier").results["history"]
        groups = families(list(found["effects"]))
        most = max(map(len, groups.values()))
        effects = {name: {metric: {key: round(value, 2) for key, value in row[metric].items()} for metric in METRICS}
                   for name, row in found["effects"].items()}
        epochs = [{"epoch": row["epoch"], **{f"{what}_{metric}": round(row[f"{what}_{metric}"], 2)
                                             for what in ("clip", "image") for metric in METRICS}} for row in history]
        return {"dials": [dial("metric", "Score", list(METRICS), "war", kind="choice", labels=list(METRICS.values())),
                          dial("family", "What is chosen", list(FAMILIES), "windows and views", kind="choice"),
                          dial("choice", "Choice", list(range(most)), 0, labels=[str(k + 1) for k in range(most)]),
                          dial("rule", "Rule for the epoch", list(RULES), "best", kind="choice",
                               labels=list(RULES.values()))],
                "groups": groups, "effects": effects, "epochs": epochs, "clips": found["clips"],
                "people": found["people"],
                "reference": {metric: round(found["reference"][metric], 2) for metric in METRICS}}

    def draw(self) -> Any:
        return draw_protocol(self.dials)


def families(names: list[str]) -> dict[str, list[str]]:
    """The choices of the record by family, in its order."""
    starts = [*FAMILIES.values(), None]
    groups = {family: [name for name in names[first:last] if name not in ELSEWHERE]
              for family, first, last in zip(FAMILIES, starts, starts[1:])}
    for name, family in ELSEWHERE.items():
        groups[family].append(name)
    return groups


def chosen(dials: dict[str, Any], kept: dict[str, Any]) -> tuple[str, float, dict[str, float]]:
    """(name of the choice, score under it in percent, its difference to the reference with interval)."""
    names = kept["groups"][dials["family"]]
    name = names[min(dials["choice"], len(names) - 1)]
    effect = kept["effects"][name][dials["metric"]]
    return name, kept["reference"][dials["metric"]] + effect["value"], effect


def epoch_of(dials: dict[str, Any], kept: dict[str, Any]) -> dict[str, float]:
    """The row of the history that a rule takes."""
    rows, key = kept["epochs"], f"clip_{dials['metric']}"
    if dials["rule"] == "best":
        return max(rows, key=lambda row: row[key])
    return rows[-1] if dials["rule"] == "last" else rows[len(rows) // 2]


def draw_protocol(dials: dict[str, Any]) -> Any:
    """The choices of the family at some dials, differences to the reference with intervals."""
    from s4d_lib.figures import draw_measures

    dials = settle("protocol_explorer", dials)
    kept = recorded("protocol_explorer")
    rows = {name: kept["effects"][name][dials["metric"]] for name in kept["groups"][dials["family"]]}
    metric = METRICS[dials["metric"]]
    return draw_measures(rows, f"{dials['family']}: difference to {kept['reference'][dials['metric']]:.1f} % {metric}",
                         f"percentage points of {metric}")
