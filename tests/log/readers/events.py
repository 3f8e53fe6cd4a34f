"""All tags and values that TensorBoard finds in a folder, as JSON: events.py FOLDER."""
import json
import sys

from tensorboard.backend.event_processing import event_accumulator as ea

events = ea.EventAccumulator(sys.argv[1], size_guidance={ea.SCALARS: 0, ea.HISTOGRAMS: 0, ea.TENSORS: 0})
events.Reload()
tags = events.Tags()


def histogram(value):
    return {name: getattr(value, name) for name in ("min", "max", "num", "sum", "sum_squares")} | {
        "bucket_limit": list(value.bucket_limit),
        "bucket": list(value.bucket),
    }


json.dump(
    {
        "scalars": {tag: [[e.wall_time, e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]},
        "histograms": {
            tag: [[e.wall_time, e.step, histogram(e.histogram_value)] for e in events.Histograms(tag)]
            for tag in tags["histograms"]
        },
        "texts": {
            tag: [[e.wall_time, e.step, e.tensor_proto.string_val[0].decode()] for e in events.Tensors(tag)]
            for tag in tags["tensors"]
        },
        "plugins": {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in tags["tensors"]},
    },
    sys.stdout,
)
