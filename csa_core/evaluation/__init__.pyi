from .probe import Probe as Probe
from .scores import predict_test_set as predict_test_set
