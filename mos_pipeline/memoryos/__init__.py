"""The class of the original MemoryOS, over a MemoryPipeline that all its objects of one folder share."""
