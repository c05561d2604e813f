"""Who learns, by name."""

from seit.continual_learning.config import Method
from seit.continual_learning.learners.base import Learner
from seit.continual_learning.learners.finetune import Finetuning, Joint
from seit.continual_learning.learners.icarl import Icarl
from seit.continual_learning.learners.lae import Lae
from seit.continual_learning.learners.prototypes import Prototypes, Ranpac
from seit.continual_learning.learners.rehearsal import DarkRehearsal, GreedyDumb, Rehearsal

LEARNERS: dict[Method, type[Learner]] = {
    "lae": Lae,
    "seq-ft": Finetuning,
    "frozen-head": Finetuning,
    "joint": Joint,
    "ncm": Prototypes,
    "simplecil": Prototypes,
    "ranpac": Ranpac,
    "er": Rehearsal,
    "der++": DarkRehearsal,
    "icarl": Icarl,
    "gdumb": GreedyDumb,
}
