"""One file for each node of the graph: reads the state, calls tools, returns an update and its decision."""
