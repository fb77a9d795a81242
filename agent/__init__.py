"""The LangGraph application: graph, policy, session, and what a person sees of it."""
