"""An edit distilled into a small network that does it in one pass, for previews, video frames and phones.

Parmar et al. end their paper with it (Section 3.3 of arXiv:2302.03027, conditional GANs of pairs that the method made),
and published no code of it. `networks` has the student and the critic that teaches it, `training` how it learns,
`distilled` the finished edit and its file.
"""

from .distilled import DistilledEdit
from .networks import Critic, Generator
from .training import Pairs, Training, TrainingSettings

__all__ = ["Critic", "DistilledEdit", "Generator", "Pairs", "Training", "TrainingSettings"]
