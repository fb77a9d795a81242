"""From measured capacity and traffic to replicas, money and a HorizontalPodAutoscaler. Nothing here calls a cluster."""
