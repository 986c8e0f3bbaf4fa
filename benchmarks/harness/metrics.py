"""What is measured of an edited picture, where the true edit is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tiny_zoo.probe import Probe, load_probe, pose_of
from tiny_zoo.world import ATTRIBUTES, Scene

from .features import Lpips, Structure
from .pixels import psnr
from .tasks import Task, pictures

MEASURED = ("edit_success", "attributes_kept", "pose_error", "bg_lpips", "structure_distance", "truth_psnr")
"""What is read off a picture."""

EXCESS = {"excess_structure": "structure_distance", "excess_lpips": "bg_lpips"}
"""Column -> that of which it is the excess over the same scene's true edit, after a passage through the autoencoder.

An edit has to change a picture; what it changes beyond that is its fault. Below 0 it changes less than it should.
"""

COLUMNS = (*MEASURED, *EXCESS)

Columns = dict[str, Tensor]
"""Column -> one value a scene, (n,)."""


@dataclass(frozen=True)
class Drawn:
    """Scenes of a task, drawn once for all methods; n of them.

    Attributes:
        source: what is edited.
        truth: what the perfect edit shows.
        source_pictures: (n, 3, 128, 128) in 0..1.
        true_pictures: likewise.
        outside: where neither's animal is, booleans, (n, 1, 128, 128).
    """

    source: list[Scene]
    truth: list[Scene]
    source_pictures: Tensor
    true_pictures: Tensor
    outside: Tensor

    @classmethod
    def of(cls, source: list[Scene], truth: list[Scene], device: str | torch.device = "cpu") -> Drawn:
        """Draw scenes, and keep their pictures on a device."""
        before, after = pictures(source), pictures(truth)
        outside = background(source, before) & background(truth, after)
        return cls(source, truth, before.to(device), after.to(device), outside.to(device))

    def part(self, first: int, count: int) -> Drawn:
        """The scenes first .. first + count - 1 of it."""
        return Drawn(*(values[first : first + count] for values in vars(self).values()))


@dataclass(frozen=True)
class Judge:
    """All that reads pictures.

    Attributes:
        probe: names what they show.
        lpips: perceptual distance.
        structure: distance of their layout.
    """

    probe: Probe
    lpips: Lpips
    structure: Structure

    @classmethod
    def load(cls, device: str | torch.device = "cpu") -> Judge:
        """Load all pretrained weights to a device.

        Raises:
            FileNotFoundError: some are not installed.
        """
        return cls(load_probe().to(device), Lpips.load().to(device), Structure.load().to(device))

    def measure(self, edited: Tensor, scenes: Drawn, task: Task) -> Columns:
        """Measure edited pictures.

        Args:
            edited: (n, 3, 128, 128) in 0..1.
            scenes: what they were edited from, and what the perfect edit shows.
            task: what the edit means to change.

        Returns:
            each column on the CPU.
            edit_success: 1 where the probe finds in the picture what the edit means to change, else 0.
            attributes_kept: share of all other attributes that the probe finds unchanged.
            pose_error: mean absolute error of position, size, tilt and proportions, as fractions of their ranges.
            bg_lpips: LPIPS to the truth, whose animal is pasted over both so that only the background can differ.
            structure_distance: to the source.
            truth_psnr: peak signal-to-noise ratio to the truth, dB.
        """
        names, pose = self.probe.read(edited)
        kept = [attribute for attribute in ATTRIBUTES if attribute not in task.change]

        def share(attributes: list[str]) -> Tensor:
            found = [[names[a][i] == getattr(scene, a) for a in attributes] for i, scene in enumerate(scenes.truth)]
            return torch.tensor(found).float().mean(1)

        truth = scenes.true_pictures
        columns = {
            "edit_success": share(list(task.change)),
            "attributes_kept": share(kept),
            "pose_error": (pose - pose_of(scenes.truth).to(pose)).abs().mean(1),
            "bg_lpips": self.lpips(torch.where(scenes.outside, edited, truth), truth),
            "structure_distance": self.structure(edited, scenes.source_pictures),
            "truth_psnr": psnr(edited, truth),
        }
        return {name: values.cpu() for name, values in columns.items()}


def with_excess(columns: Columns, true_edit: Columns) -> Columns:
    """Add the columns of `EXCESS`.

    Args:
        columns: of edited pictures, as `Judge.measure` returns them.
        true_edit: of the true edits of the same scenes through the autoencoder.
    """
    return columns | {name: columns[plain] - true_edit[plain] for name, plain in EXCESS.items()}


def background(scenes: list[Scene], drawn: Tensor, threshold: float = 0.02) -> Tensor:
    """Where no animal is in scenes' pictures (n, 3, H, W): booleans, (n, 1, H, W)."""
    return (drawn - pictures(scenes, animal=False)).abs().amax(1, keepdim=True) < threshold
