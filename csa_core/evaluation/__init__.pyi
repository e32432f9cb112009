from .probe import Probe as Probe
from .scores import predict as predict
from .scores import predict_test_set as predict_test_set
from .scores import score as score
from .scores import with_ensemble as with_ensemble
