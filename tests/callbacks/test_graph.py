"""The network as TensorBoard draws it."""

from torch import nn

from backlight.callbacks.graph import graph_of
from backlight.model import SigmoidMLP


def test_the_graph_is_the_chain_of_layers_under_their_own_names() -> None:
    graph = graph_of(SigmoidMLP(3, [5, 4], 2, activation="tanh"))
    drawn = {node.name: node for node in graph.node}
    chain, name = ["logits"], "logits"
    while drawn[name].input:
        name = drawn[name].input[0]
        chain.append(name)
    assert chain[::-1] == [
        "features", "layers.0/linear", "tanh.0", "layers.1/linear", "tanh.1", "layers.2/linear", "logits",
    ]  # fmt: skip
    sizes = {
        name: [axis.size for axis in node.attr["_output_shapes"].list.shape[0].dim]
        for name, node in drawn.items()
    }
    assert [sizes[name][1] for name in chain[::-1]] == [3, 5, 5, 4, 4, 2, 2]
    assert (sizes["layers.1/weight"], sizes["layers.1/bias"]) == ([4, 5], [4])
    assert list(drawn["layers.1/linear"].input) == ["tanh.0", "layers.1/weight", "layers.1/bias"]


def test_any_chain_of_layers_can_be_drawn() -> None:
    graph = graph_of(nn.Sequential(nn.Linear(3, 2), nn.SiLU(), nn.Linear(2, 1)))
    known = {node.name for node in graph.node}
    assert {"features", "0/linear", "activation.0", "2/linear", "logits"} <= known
    assert {fed for node in graph.node for fed in node.input} <= known
