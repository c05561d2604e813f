"""Registry of learners, by method name."""

from seit.continual_learning.learners.base import Learner
from seit.continual_learning.learners.finetune import Finetuning, FrozenHead, Joint
from seit.continual_learning.learners.icarl import Icarl
from seit.continual_learning.learners.lae import Lae
from seit.continual_learning.learners.prototypes import NearestMean, SimpleCil
from seit.continual_learning.learners.ranpac import Ranpac
from seit.continual_learning.learners.rehearsal import DarkRehearsal, GreedyDumb, Rehearsal
from seit.continual_learning.methods import Method

LEARNERS: dict[Method, type[Learner]] = {
    "lae": Lae,
    "seq-ft": Finetuning,
    "joint": Joint,
    "frozen-head": FrozenHead,
    "ncm": NearestMean,
    "simplecil": SimpleCil,
    "ranpac": Ranpac,
    "er": Rehearsal,
    "der++": DarkRehearsal,
    "icarl": Icarl,
    "gdumb": GreedyDumb,
}


def methods_where(**facts: object) -> str:
    """Return the names of methods with these facts, formatted for a message."""
    names = [
        name
        for name, learner in LEARNERS.items()
        if all(getattr(learner, fact) == value for fact, value in facts.items())
    ]
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)
