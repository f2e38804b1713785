"""mos_pipeline."""
