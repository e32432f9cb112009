from .augment import training_images as training_images
from .plan import draw_mix as draw_mix
from .plan import draw_places as draw_places
from .plan import plan_epoch as plan_epoch
from .ranks import gather as gather
from .ranks import own_rows as own_rows
from .views import plan_views as plan_views
