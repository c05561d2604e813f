"""Who learns, by name."""

from seit.train.continual.config import Method
from seit.train.continual.finetuning import Finetuning, Joint
from seit.train.continual.icarl import Icarl
from seit.train.continual.lae import Lae
from seit.train.continual.learner import Learner
from seit.train.continual.prototypes import Prototypes, Ranpac
from seit.train.continual.rehearsal import DarkRehearsal, GreedyDumb, Rehearsal

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
