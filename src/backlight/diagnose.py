"""Entry point: what ails a run, how one sees it, and what may help."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from omegaconf import DictConfig
from rich import get_console
from rich.markup import escape
from rich.table import Table

from backlight.assemble import Node, build_data
from backlight.config import build, plain
from backlight.data.module import ClassificationData
from backlight.diagnosis.finding import Finding
from backlight.diagnosis.observations import Observations
from backlight.diagnosis.remedies import remedies
from backlight.diagnosis.remedy import Remedy
from backlight.diagnosis.symptoms import explanation, findings
from backlight.examination import Evidence, Run, examine_kin
from backlight.run_folder import RunFolder


@dataclass(frozen=True)
class Diagnosis:
    """The findings of a run, the main one first, and what they were found in."""

    findings: list[Finding]
    seen: Observations

    @classmethod
    def of(cls, config: Node, evidence: Evidence, data: ClassificationData) -> "Diagnosis":
        """Examine a run."""
        return cls.of_kin([(config, evidence, data)])[0]

    @classmethod
    def of_kin(cls, runs: Sequence[Run]) -> list["Diagnosis"]:
        """Examine runs at once; see `backlight.examination.examine_kin`."""
        return [cls(findings(seen), seen) for seen in examine_kin(runs)]

    def dated(self, first_seen: Mapping[str, int]) -> "Diagnosis":
        """With the step at which each symptom was found while the run trained, where that is earlier."""
        dated = [
            replace(finding, step=min(finding.step, first_seen.get(finding.symptom, finding.step)))
            for finding in self.findings
        ]
        return replace(self, findings=dated)

    @property
    def verdict(self) -> str:
        """One line: `healthy`, or what ails the run."""
        if not self.findings:
            return "healthy"
        main, *others = self.findings
        line = f"{said(main)}. {explanation(main)}"
        return f"{line} Also: {', '.join(map(said, others))}." if others else line

    @property
    def remedies(self) -> list[Remedy]:
        """Settings that may help against the main finding, the likeliest first."""
        return [
            remedy for finding in self.findings[:1] for remedy in self.against(finding) if remedy.overrides
        ]

    def against(self, finding: Finding) -> list[Remedy]:
        """What may help against a finding, the likeliest first."""
        return remedies(finding, self.seen)

    def as_data(self) -> list[dict[str, Any]]:
        """For `summary.json`."""
        return [
            {
                "symptom": finding.symptom,
                "severity": finding.severity,
                "step": finding.step,
                "layer": finding.layer,
                "neurons": finding.neurons,
                "evidence": {
                    name: value
                    for name, value in finding.evidence.items()
                    if isinstance(value, str) or isfinite(value)  # JSON has no NaN
                },
                "remedies": [remedy.overrides for remedy in self.against(finding) if remedy.overrides],
            }
            for finding in self.findings
        ]

    def as_markdown(self) -> str:
        """For TensorBoard."""
        lines = [f"**{self.verdict}**"]
        for finding in self.findings:
            evidence = ", ".join(
                f"{name.replace('_', ' ')} {_number(value)}" for name, value in finding.evidence.items()
            )
            meaning = [explanation(finding), ""] if finding is not self.findings[0] else []
            lines += ["", f"### {_title(finding)}", *meaning, evidence, ""]
            for remedy in self.against(finding):
                what = f"`{remedy.overrides}` " if remedy.overrides else ""
                lines.append(f"1. {what}{remedy.why} *{remedy.source}*")
        return "\n".join(lines)


def run(config: DictConfig) -> Diagnosis:
    """Print and return the diagnosis that `conf/diagnose.yaml` asks for.

    Raises:
        BacklightError: the user can mend it.
    """
    return build(diagnose, plain(config), "")


def diagnosis_of(folder: RunFolder) -> Diagnosis:
    """The diagnosis of a run, finished or not.

    Raises:
        BacklightError: it cannot be read.
    """
    stored = plain(folder.read_config())
    data = build_data(stored["data"], run_seed=stored["seed"])
    data.setup()
    return Diagnosis.of(stored, Evidence.of(folder, _error(folder)), data)


def diagnose(*, run: str) -> Diagnosis:
    """Examine a run, finished or not.

    Args:
        run: its run folder.

    Raises:
        BacklightError: it cannot be read.
    """
    diagnosis = diagnosis_of(RunFolder(run))
    console = get_console()
    console.print(diagnosis.verdict, highlight=False, soft_wrap=True, markup=False)
    for finding in diagnosis.findings:
        console.print(_title(finding), style="bold", highlight=False, soft_wrap=True)
        if finding is not diagnosis.findings[0]:  # the verdict tells of that one
            console.print(explanation(finding), highlight=False, soft_wrap=True, markup=False)
        console.print(_evidence(finding))
        for number, remedy in enumerate(diagnosis.against(finding), 1):
            what = f"{remedy.overrides}  " if remedy.overrides else ""
            line = f"{number}. {what}{remedy.why} ({remedy.source})"
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    return diagnosis


def _error(folder: RunFolder) -> str | None:
    try:
        error = json.loads(folder.summary.read_text(encoding="utf-8"))["error"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # unfinished
    return None if error is None else str(error)


def said(finding: Finding) -> str:
    """The symptom in words, and where it is."""
    name = finding.symptom.replace("_", " ")
    return name if finding.layer is None else f"{name} in {finding.layer}"


def _title(finding: Finding) -> str:
    return f"{said(finding)} ({finding.severity}, from step {finding.step:,})"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _evidence(finding: Finding) -> Table:
    table = Table(show_header=False)
    for name, value in finding.evidence.items():
        table.add_row(name.replace("_", " "), escape(_number(value)))
    if finding.neurons:
        shown = ", ".join(map(str, finding.neurons[:10]))
        more = len(finding.neurons) - 10
        table.add_row("neurons", f"{shown} and {more} more" if more > 0 else shown)
    return table
