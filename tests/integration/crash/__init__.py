"""Runs that are killed, stopped or starved at any moment, and what their caches and ledgers hold against a model."""

pipelines_name = "tests.integration.crash.pipelines"
definitions_name = "tests.integration.crash.definitions"
