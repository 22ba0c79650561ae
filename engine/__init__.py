"""The deployed half: contract, photo, preprocessing, runners, screener, results, sinks. No torch."""
