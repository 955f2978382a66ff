"""The network as TensorBoard draws it."""

from collections.abc import Sequence

from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from torch import nn

from backlight.model import SigmoidMLP

ANY = -1  # size of an axis: of the batch


def graph_of(model: nn.Module) -> GraphDef:
    """Features, linear layers with activations between them, and logits, under the names that everything else has.

    PyTorch's own is traced, in which layers have the names of Python's classes, and takes ten times as long.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    activation = model.architecture["activation"] if isinstance(model, SigmoidMLP) else "activation"
    features = next(iter(layers.values())).in_features
    nodes = [_node("features", "Placeholder", [], ANY, features)]
    for number, (name, layer) in enumerate(layers.items()):
        if number > 0:
            fed = nodes[-1].name
            nodes.append(_node(f"{activation}.{number - 1}", activation, [fed], ANY, layer.in_features))
        fed, weight, bias = nodes[-1].name, f"{name}/weight", f"{name}/bias"
        nodes += [
            _node(weight, "Parameter", [], *layer.weight.shape),
            _node(bias, "Parameter", [], layer.out_features),
            _node(f"{name}/linear", "Linear", [fed, weight, bias], ANY, layer.out_features),
        ]
    outputs = layer.out_features
    return GraphDef(node=[*nodes, _node("logits", "Identity", [nodes[-1].name], ANY, outputs)])


def _node(name: str, op: str, inputs: Sequence[str], *shape: int) -> NodeDef:
    sizes = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape])
    shapes = AttrValue(list=AttrValue.ListValue(shape=[sizes]))
    return NodeDef(name=name, op=op, input=inputs, attr={"_output_shapes": shapes})
