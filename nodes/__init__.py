"""The ComfyUI nodes: thin adapters from MODEL, LATENT, CONDITIONING and CLIP to `pix2pix_zero_core`."""

from __future__ import annotations

from comfy_api.v0_0_2 import ComfyExtension, io

from .caption import BLIPCaption
from .direction_files import CombineEditDirections, ImportEditDirection, LoadEditDirection, SaveEditDirection
from .directions import ApplyEditDirection, EditDirection
from .distilled import ApplyDistilledEdit, LoadDistilledEdit
from .fitting import FitPicture
from .guidance import CrossAttnGuidance, CrossAttnGuider
from .inversion import RegularizedDDIMInvert
from .judge import JudgeEdit
from .sampling import CrossAttnGuidedSampler
from .sentences import LoadSentences, SaveSentences, WriteSentences
from .sheets import ContactSheet, ValuesToTry
from .until import EditUntilItShows
from .visualization import AttentionMaps, Compare


class Pix2PixZeroExtension(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """List the nodes."""
        return [
            BLIPCaption,
            RegularizedDDIMInvert,
            EditDirection,
            ApplyEditDirection,
            CrossAttnGuidedSampler,
            CrossAttnGuidance,
            CrossAttnGuider,
            AttentionMaps,
            Compare,
            LoadEditDirection,
            SaveEditDirection,
            ImportEditDirection,
            CombineEditDirections,
            WriteSentences,
            LoadSentences,
            SaveSentences,
            JudgeEdit,
            EditUntilItShows,
            FitPicture,
            ValuesToTry,
            ContactSheet,
            LoadDistilledEdit,
            ApplyDistilledEdit,
        ]
