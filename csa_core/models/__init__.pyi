from .folded import folded as folded
from .precision import features as features
from .precision import resolve as resolve
from .resnet import Network as Network
from .resnet import make_body as make_body
from .resnet import make_network as make_network
from .simsiam import SimSiamNetwork as SimSiamNetwork
from .simsiam import make_simsiam as make_simsiam
