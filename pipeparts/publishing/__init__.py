"""Components and pipelines as versioned templates: in a registry, a bucket or a folder."""
