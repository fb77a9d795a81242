"""One HorizontalPodAutoscaler in a cluster: how it is read, what may be changed, and by whom."""
