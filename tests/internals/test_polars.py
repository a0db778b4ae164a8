"""Classify every name of Polars' native classes by its cost for the hub. A new name in a new Polars fails here.

The remedy: see what the function does. If it computes, reads, writes or waits, it is an execution, and belongs in
`greendata.internals.polars`, from where the patch sends it to the pool. If not, add it to `CHEAP`.
"""

from __future__ import annotations

import polars as pl
import polars._plr as plr
import pytest
from polars.lazyframe import engine_config

from greendata.internals.polars import (
    ESSENTIAL,
    EXECUTIONS,
    HANDOFFS,
    engine_affinity,
    engine_named,
)
from greendata.query.patching.function_patch import original


def words(text: str) -> set[str]:
    return set(text.split())


NUMBERS = words("f16 f32 f64 i8 i16 i32 i64 i128 u8 u16 u32 u64 u128")

# What stays on the caller's thread, by class; "" has the functions of the module.
CHEAP: dict[str, set[str]] = {
    # These extend a plan, and compute nothing.
    "PyLazyFrame": words(
        """
        _node_name _retained_parquet_footers bottom_k cache cast cast_all clone count drop drop_nans drop_nulls
        explode fill_nan filter from_lazyframe_resolver gather group_by group_by_dynamic hint_sorted join join_asof
        join_where map_batches match_to_schema max mean median merge_sorted min new_from_csv new_from_dataset_object
        new_from_expand_paths new_from_external_reader_builder new_from_ipc new_from_ndjson new_from_parquet
        new_from_scan_lines null_count pipe_with_schema pivot quantile remove rename reverse rolling
        scan_from_python_function_arrow_schema scan_from_python_function_pl_schema
        scan_from_python_function_schema_function select select_seq shift sink_batches sink_csv sink_iceberg
        sink_ipc sink_ndjson sink_parquet slice sort sort_by_exprs std sum tail top_k unique unnest unpivot var
        visit with_columns with_columns_seq with_optimizations with_row_index
        """
    ),
    "PyLazyGroupBy": words("agg having head map_groups tail"),
    # These return at once, or after at most one pass over the data. Some convert to Python objects, like `row_tuples`:
    # they hold the GIL, so running them in another thread would not help the hub.
    "PyDataFrame": words(
        """
        _export_columns _import_columns _row_encode _to_metadata add add_df as_str clear clone columns div div_df
        drop_in_place dtype_strings dtypes empty_with_height equals estimated_size extend from_arrow_record_batches
        from_dicts from_rows gather gather_with_series get_column get_column_index get_columns head height hstack
        hstack_mut insert_column is_empty is_sorted lazy mul mul_df n_chunks null_count rechunk rem rem_df replace
        replace_column row_tuple row_tuples select set_column_names shape shrink_to_fit slice sub sub_df tail
        to_arrow to_numpy to_numpy_masked to_pandas to_series to_struct unpivot vstack vstack_mut width
        with_row_index
        """
    ),
    "PySeries": words(
        """
        _export _export_arrow_to_c _import _import_arrow_from_c _import_decimal_from_iceberg_binary_repr add
        add_datetime add_duration all any append approx_n_unique arg_max arg_min as_single_ptr as_str bitand bitor
        bitwise_and bitwise_or bitwise_xor bitxor can_fast_explode_flag cast chunk_lengths clear clone div dot dtype
        eq equals estimated_size ext_storage ext_to extend filter first floor from_arrow from_arrow_c_array
        from_arrow_c_stream gather_with_series get_chunks get_date get_datetime get_duration get_fmt get_index
        get_index_signed get_list get_object get_str gt gt_eq has_nulls head is_empty is_sorted
        is_sorted_ascending_flag is_sorted_descending_flag kurtosis last len lt lt_eq max mean median min mul
        n_chunks name neq new_array new_binary new_bool new_decimal new_from_any_values
        new_from_any_values_and_dtype new_from_index new_null new_object new_opt_bool new_series_list new_str not_
        null_count product quantile rechunk rem rename reshape scatter set set_sorted_flag shrink_dtype
        shrink_to_fit skew slice std struct_fields struct_unnest sub sub_datetime sub_duration sum tail to_arrow
        to_list to_numpy to_numpy_masked to_numpy_view var zip_with
        """
    )
    | {f"{verb}_{kind}{side}" for verb in words("add sub mul div rem") for kind in NUMBERS for side in ("", "_rhs")}
    | {f"{verb}_{kind}" for verb in words("eq neq lt lt_eq gt gt_eq") for kind in (*NUMBERS, "decimal", "str")}
    | {f"{verb}_{kind}" for verb in words("get new new_opt apply_ufunc") for kind in NUMBERS},
    "PyInProcessQuery": words("cancel fetch"),
    # These build a plan. Only EXPLAIN and DELETE resolve a schema, while they hold a lock of the context.
    "PySQLContext": words(
        """
        catalog_ddl catalog_tables default_catalog execute execute_with_catalog_tables get_tables new register
        register_catalog set_default_catalog table_identifiers unregister unregister_catalog
        """
    ),
    "PyCatalogClient": words("init_classes new scan_table type_json_to_polars_type"),
    # Expressions, plans, concatenation without a copy, settings, and the assertions of `polars.testing`.
    "": words(
        """
        _bench_parquet_metadata_bincode_size _estimate_memory_usage _get_dtype_max _get_dtype_min
        _iceberg_plugin_scan _known_timezones _parquet_metadata_pruned_json _register_extension_type
        _unregister_extension_type all_horizontal any_horizontal arctan2 arg_sort_by arg_where as_struct
        assert_dataframe_equal_py assert_schema_equal_py assert_series_equal_py business_day_count check_length
        coalesce col collect_all_lazy concat_arr concat_df concat_df_diagonal concat_df_horizontal concat_expr
        concat_lf concat_lf_diagonal concat_lf_horizontal concat_list concat_series concat_str config_reload_env_var
        config_reload_env_vars cov cum_fold cum_reduce date_range date_ranges datetime datetime_range
        datetime_ranges dtype_str_repr duration eager_int_range element escape_regex field fold gen_uuid_v7
        get_decimal_separator get_engine_affinity get_float_fmt get_float_precision get_index_type
        get_thousands_separator get_trim_decimal_zeros init_polars_schema_from_arrow_c_schema int_range int_ranges
        len linear_space linear_spaces list lit map_expr max_horizontal mean_horizontal min_horizontal pearson_corr
        pipe_with_dtype polars_schema_field_from_arrow_c_schema polars_schema_to_pycapsule prepare_cloud_plan
        read_clipboard_string reduce register_plugin_function repeat rolling_corr rolling_cov set_decimal_separator
        set_float_fmt set_float_precision set_query_monitoring set_random_seed set_thousands_separator
        set_trim_decimal_zeros spearman_rank_corr sql_expr sum_horizontal thread_pool_size time_range time_ranges
        when write_clipboard_string
        """
    ),
}


def names_of(owner: str) -> set[str]:
    """Return the names in a native class, or of the module's functions, of the installed Polars."""
    if owner:
        return {name for name in vars(getattr(plr, owner)) if not name.startswith("__")}
    functions = {name for name, found in vars(plr).items() if callable(found) and not isinstance(found, type)}
    return {name for name in functions if not name.startswith("__")}


def of_owner(owner: str, names: tuple[str, ...]) -> set[str]:
    """Return those of *names* that belong to *owner*, without the path."""
    if not owner:  # a function may be patched where Polars' Python code has it, under a name of its own
        return {path.removeprefix("_") for name in names if "." not in (path := name.partition(":")[2])}
    prefix = f"polars._plr:{owner}."
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def unsorted(owner: str) -> set[str]:
    return names_of(owner) - CHEAP[owner] - of_owner(owner, EXECUTIONS) - of_owner(owner, HANDOFFS)


every_owner = pytest.mark.parametrize("owner", CHEAP, ids=lambda owner: owner or "functions")


@every_owner
def test_every_name_is_an_execution_a_handoff_or_cheap(owner: str) -> None:
    assert unsorted(owner) == set(), f"new in Polars {pl.__version__}; sort it as this module's docstring says"


@every_owner
def test_no_name_has_two_classes(owner: str) -> None:
    executions, handoffs = of_owner(owner, EXECUTIONS), of_owner(owner, HANDOFFS)
    assert not executions & handoffs
    assert not (executions | handoffs) & CHEAP[owner]


def test_a_new_name_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plr.PyLazyFrame, "collect_on_the_moon", lambda plan: None, raising=False)
    monkeypatch.setattr(plr, "collect_everything", lambda: None, raising=False)
    assert unsorted("PyLazyFrame") == {"collect_on_the_moon"}
    assert unsorted("") == {"collect_everything"}


def test_every_execution_is_there_in_the_polars_of_today() -> None:
    assert [name for name in EXECUTIONS + HANDOFFS if original(name) is None] == []
    assert set(ESSENTIAL) < set(EXECUTIONS)
    assert len(set(EXECUTIONS + HANDOFFS)) == len(EXECUTIONS + HANDOFFS)


def test_a_function_of_python_that_is_missing_fails_where_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_affinity() == "auto"
    assert engine_named("streaming").name == "streaming"
    monkeypatch.delattr(engine_config, "_engine_from_name")
    with pytest.raises(ImportError, match="_engine_from_name"):
        engine_named("streaming")
