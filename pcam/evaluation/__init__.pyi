from .candidates import feature_edges as feature_edges
from .constant import baselines as baselines, is_constant as is_constant
from .explain import find_neighbours as find_neighbours, integrated_gradients as integrated_gradients
from .export import export_onnx as export_onnx
from .features import input_features as input_features
from .gallery import ErrorGallery as ErrorGallery
from .gallery_patches import error_figure as error_figure
from .images import predict_images as predict_images
from .intervals import t_interval as t_interval, wilson as wilson
from .metrics import Metric as Metric, score_metrics as score_metrics
from .predict import evaluate as evaluate, predict_split as predict_split
from .predictions import (
    Predictions as Predictions,
    read_predictions as read_predictions,
    write_predictions as write_predictions,
)
from .slices import Scored as Scored, find_slices as find_slices, slice_masks as slice_masks, weak_slices as weak_slices
from .suspects import label_suspects as label_suspects
from .thresholds import (
    Threshold as Threshold,
    choose_for_sensitivity as choose_for_sensitivity,
    choose_threshold as choose_threshold,
    confusion_matrix as confusion_matrix,
    fixed_threshold as fixed_threshold,
    implied_threshold as implied_threshold,
)
