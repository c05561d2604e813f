"""Methods of compression, by name."""

from collections.abc import Mapping

from seit.compression.config import MethodName
from seit.compression.distillation import Student
from seit.compression.int8.methods import Int8
from seit.compression.method import Method
from seit.compression.pruning.objective import PrunedClassification
from seit.compression.quantization_aware.objective import QuantizedClassification
from seit.compression.training import Training
from seit.compression.weights.methods import FewBits
from seit.compression.weights.mixed import Mixed

METHODS: Mapping[MethodName, Method] = {
    "int8": Int8(static=False),
    "int8-static": Int8(static=True),
    "w8": FewBits(8),
    "w4": FewBits(4),
    "w3": FewBits(3),
    "w2": FewBits(2),
    "mixed": Mixed(),
    "qat": Training(QuantizedClassification, "weights and inputs of layers trained in few bits"),
    "prune": Training(PrunedClassification, "weights or whole parts removed, the rest trained"),
    "distill": Training(Student, "a smaller network that learns from the run"),
}
