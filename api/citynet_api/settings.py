"""Settings of the api, table ``[api]``. Every bound of the room is here, and what happens at it is written beside it."""

from __future__ import annotations

from pydantic import Field

from citynet.runtime.settings import Table, table_config


class ApiSettings(Table):
    """How the api listens, what it grants one request, and how many may watch at once."""

    model_config = table_config("api")

    host: str = Field("127.0.0.1", description="address to listen on; put a TLS proxy in front before leaving loopback")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    stop_s: float = Field(2.0, gt=0, le=30, description="how long a stop waits for requests in flight")

    page_size_default: int = Field(100, ge=1, le=500, description="rows of a page when the client names no limit")
    page_size_max: int = Field(500, ge=1, le=5000, description="largest page; a larger limit is refused")
    points_default: int = Field(300, ge=1, le=5000, description="buckets that bucket=auto aims at")
    points_max: int = Field(5000, ge=1, le=50_000, description="most buckets of one answer; finer buckets are refused")

    series_max: int = Field(100, ge=1, le=1000, description="most series of one answer of /v1/readings")
    points_total_max: int = Field(
        50_000, ge=1000, le=1_000_000, description="most buckets of all series of one answer; more are refused"
    )
    raw_hours_max: float = Field(
        72, gt=0, le=10_000, description="hours of raw readings that one answer may read, over all its series"
    )
    latest_page_max: int = Field(5000, ge=1, le=50_000, description="largest page of /v1/latest")
    completeness_series_max: int = Field(
        5000, ge=1, le=100_000, description="most series that completeness adds up by district, metric or device"
    )
    completeness_days_max: int = Field(
        400, ge=1, le=4000, description="longest range of a completeness; a longer one is refused"
    )

    stream_clients_max: int = Field(200, ge=1, le=10_000, description="event streams at once; one more is answered 503")
    stream_queue_max: int = Field(
        256,
        ge=1,
        le=100_000,
        description="transitions that wait for one client; a slower client is cut off and resumes",
    )
    stream_page: int = Field(500, ge=1, le=10_000, description="transitions fetched at once, live and on resume")
    stream_poll_s: float = Field(
        2.0, gt=0, le=60, description="look for transitions at least this often, notified or not"
    )
    stream_heartbeat_s: float = Field(5.0, gt=0, le=60, description="a comment goes to every client this often")
    stream_recheck_s: float = Field(
        30.0, gt=0, le=3600, description="the token of an open stream is verified this often"
    )
    stream_send_timeout_s: float = Field(15.0, gt=0, le=120, description="a client that takes no bytes is cut off then")

    pool_size_min: int = Field(1, ge=0, le=100, description="database connections kept open")
    pool_size_max: int = Field(8, ge=1, le=100, description="most database connections of the pool")
    pool_waiting_max: int = Field(
        128, ge=1, le=10_000, description="requests that may wait for a connection; more get 503"
    )
    pool_wait_s: float = Field(3.0, gt=0, le=60, description="how long a request waits for a connection, then 503")
    connect_timeout_s: int = Field(3, ge=2, le=60, description="how long opening a connection may take")
    statement_timeout_s: float = Field(10.0, gt=0, le=600, description="how long one query may run, then 503")

    token_cache_s: float = Field(
        3.0, ge=0, le=5, description="a verified token is believed this long without a look-up"
    )
    body_bytes_max: int = Field(65_536, ge=1024, le=1 << 24, description="largest request body, registration aside")
    registration_bytes_max: int = Field(16 << 20, ge=1024, le=1 << 28, description="largest registration document")
    topology_bytes_max: int = Field(64 << 20, ge=1024, le=1 << 30, description="largest topology document")
    topology_items_max: int = Field(
        500_000, ge=1, le=5_000_000, description="most districts, assets and edges of one topology document"
    )
    registration_devices_max: int = Field(20_000, ge=1, le=200_000, description="most devices of one registration")
