"""Results as people read them: tables, model cards, evaluation pages."""
