"""From the metrics of finished runs to what is read: collected, summarised, written."""
