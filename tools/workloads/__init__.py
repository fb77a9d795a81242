"""Loading a user's model and data, and the workloads that infertune brings along."""
