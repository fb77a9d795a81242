"""The agent, wired."""

from __future__ import annotations

import os

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # checkpoints hold plain values only; before the import

from langgraph.graph import END, START, StateGraph

from nodes.advice import advice
from nodes.apply import apply, is_applied
from nodes.approval import approval, is_approved
from nodes.batch_tuning import batch_tuning
from nodes.compression_evaluation import compression_evaluation
from nodes.confirmation import confirmation
from nodes.context import Context, TuningState
from nodes.planner import next_experiment, planner
from nodes.profiler import profiler
from nodes.quantization_evaluation import quantization_evaluation
from nodes.report import is_planned, report
from nodes.runtime_evaluation import runtime_evaluation
from nodes.scaling_plan import scaling_plan
from nodes.scaling_recommendation import scaling_recommendation
from nodes.verify import verify

EXPERIMENTS = (
    "runtime_evaluation",
    "quantization_evaluation",
    "compression_evaluation",
    "batch_tuning",
    "confirmation",
)
"""Nodes that the planner sends to, and that return to it; `advice` does as well."""


def build_graph() -> StateGraph[TuningState, Context]:
    """Wire the agent. Reading this function is seeing the agent."""
    graph = StateGraph(TuningState, context_schema=Context)
    for node in (
        profiler,
        planner,
        runtime_evaluation,
        quantization_evaluation,
        compression_evaluation,
        batch_tuning,
        advice,
        confirmation,
        scaling_recommendation,
        scaling_plan,
        report,
        approval,
        apply,
        verify,
    ):
        graph.add_node(node)
    graph.add_edge(START, "profiler")
    graph.add_edge("profiler", "planner")
    graph.add_conditional_edges("planner", next_experiment, [*EXPERIMENTS, "advice", "scaling_recommendation"])
    for experiment in (*EXPERIMENTS, "advice"):
        graph.add_edge(experiment, "planner")
    graph.add_edge("scaling_recommendation", "scaling_plan")
    graph.add_edge("scaling_plan", "report")
    graph.add_conditional_edges("report", is_planned, ["approval", END])  # the result is there before anybody is asked
    graph.add_conditional_edges("approval", is_approved, ["apply", "report"])
    graph.add_conditional_edges("apply", is_applied, ["verify", "report"])
    graph.add_edge("verify", "report")
    return graph


graph = build_graph().compile()
"""For `langgraph.json`: the platform brings its own checkpointer."""
