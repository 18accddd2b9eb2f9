"""The advert service: a small directory where nodes, stores, replicas and workers are found."""
