-- What ClickBench asks of its hits, asked of vega-datasets' flights_3m: date, delay, distance, origin, destination.
-- One statement a line, valid in DuckDB and in DataFusion. Answers are the same in both, but for the one LIMIT without an order.

-- Whole columns.
SELECT count(*) FROM flights_3m;
SELECT count(*) FROM flights_3m WHERE delay <> 0;
SELECT sum(delay), count(*), avg(distance) FROM flights_3m;
SELECT avg(delay), stddev(delay) FROM flights_3m;
SELECT count(DISTINCT distance) FROM flights_3m;
SELECT count(DISTINCT origin) FROM flights_3m;
SELECT min(date), max(date), min(origin), max(destination) FROM flights_3m;
SELECT median(delay), median(distance) FROM flights_3m;

-- Few groups.
SELECT delay, count(*) AS n FROM flights_3m WHERE delay <> 0 GROUP BY delay ORDER BY n DESC, delay;
SELECT origin, count(DISTINCT destination) AS n FROM flights_3m GROUP BY origin ORDER BY n DESC, origin LIMIT 10;
SELECT origin, sum(delay), count(*) AS n, avg(distance), count(DISTINCT destination) FROM flights_3m GROUP BY origin ORDER BY n DESC, origin LIMIT 10;
SELECT destination, count(DISTINCT date) AS n FROM flights_3m WHERE origin <> 'ORD' GROUP BY destination ORDER BY n DESC, destination LIMIT 10;
SELECT destination, count(*) AS n FROM flights_3m WHERE distance > 500 GROUP BY destination ORDER BY n DESC, destination LIMIT 10;
SELECT origin, min(delay), max(delay), min(distance), max(distance), min(date), max(date) FROM flights_3m GROUP BY origin ORDER BY origin;
SELECT substr(origin, 1, 1) AS letter, avg(delay) AS mean, count(*) AS n, min(destination) FROM flights_3m GROUP BY substr(origin, 1, 1) HAVING count(*) > 100000 ORDER BY mean DESC;
SELECT origin, avg(delay) AS mean, count(*) AS n FROM flights_3m WHERE distance > 100 GROUP BY origin HAVING count(*) > 10000 ORDER BY mean DESC, origin LIMIT 25;
SELECT CASE WHEN delay <= 0 THEN 'on time' WHEN delay <= 15 THEN 'slightly late' WHEN delay <= 60 THEN 'late' ELSE 'very late' END AS how, count(*) AS n, avg(distance) FROM flights_3m GROUP BY how ORDER BY n DESC;

-- Many groups, and groups by several columns.
SELECT origin, destination, count(DISTINCT delay) AS n FROM flights_3m WHERE delay > 0 GROUP BY origin, destination ORDER BY n DESC, origin, destination LIMIT 10;
SELECT origin, destination, count(*) AS n FROM flights_3m WHERE delay > 15 GROUP BY origin, destination ORDER BY n DESC, origin, destination LIMIT 10;
SELECT date, count(*) AS n FROM flights_3m GROUP BY date ORDER BY n DESC, date LIMIT 10;
SELECT date, origin, count(*) AS n FROM flights_3m GROUP BY date, origin ORDER BY n DESC, date, origin LIMIT 10;
SELECT date, origin, count(*) AS n FROM flights_3m GROUP BY date, origin LIMIT 10;
SELECT origin, extract(minute FROM date) AS minute, destination, count(*) AS n FROM flights_3m GROUP BY origin, extract(minute FROM date), destination ORDER BY n DESC, origin, minute, destination LIMIT 10;
SELECT date, distance, count(*) AS n, sum(delay), avg(delay) FROM flights_3m WHERE delay <> 0 GROUP BY date, distance ORDER BY n DESC, date, distance LIMIT 10;
SELECT date, distance, count(*) AS n, sum(delay), avg(delay) FROM flights_3m GROUP BY date, distance ORDER BY n DESC, date, distance LIMIT 10;
SELECT origin || '-' || destination AS route, count(*) AS n FROM flights_3m GROUP BY origin || '-' || destination ORDER BY n DESC, route LIMIT 10;
SELECT distance, distance - 1, distance - 2, distance - 3, count(*) AS n FROM flights_3m GROUP BY distance, distance - 1, distance - 2, distance - 3 ORDER BY n DESC, distance LIMIT 10;

-- Few rows of all, by their values or by their order.
SELECT date, delay, origin, destination FROM flights_3m WHERE distance = 4962;
SELECT count(*) FROM flights_3m WHERE destination LIKE '%S%';
SELECT destination, min(origin), count(*) AS n FROM flights_3m WHERE origin LIKE '%A%' AND destination <> 'ATL' GROUP BY destination ORDER BY n DESC, destination LIMIT 10;
SELECT origin, min(destination), max(date), count(*) AS n, count(DISTINCT distance) FROM flights_3m WHERE destination LIKE '%F%' AND origin NOT LIKE 'L%' AND delay <> 0 GROUP BY origin ORDER BY n DESC, origin LIMIT 10;
SELECT * FROM flights_3m WHERE origin LIKE '%X%' ORDER BY date LIMIT 10;
SELECT destination FROM flights_3m WHERE delay > 0 ORDER BY date LIMIT 10;
SELECT destination FROM flights_3m WHERE delay > 0 ORDER BY destination LIMIT 10;
SELECT origin, destination, delay FROM flights_3m ORDER BY delay DESC, date LIMIT 100;

-- Arithmetic.
SELECT sum(delay), sum(delay + 1), sum(delay + 2), sum(delay + 3), sum(delay + 4), sum(delay + 5), sum(delay + 6), sum(delay + 7), sum(delay + 8), sum(delay + 9), sum(delay + 10), sum(delay + 11), sum(delay + 12), sum(delay + 13), sum(delay + 14), sum(delay + 15), sum(delay + 16), sum(delay + 17), sum(delay + 18), sum(delay + 19) FROM flights_3m;
SELECT distance - distance % 100 AS hundreds, count(*) AS n, avg(delay) FROM flights_3m GROUP BY distance - distance % 100 ORDER BY hundreds;

-- Dates, ranges of them, and pages far down.
SELECT date_trunc('day', date) AS day, count(*) AS n, avg(delay) FROM flights_3m GROUP BY date_trunc('day', date) ORDER BY day;
SELECT date_part('dow', date) AS weekday, date_part('hour', date) AS hour, count(*) AS n, avg(delay) FROM flights_3m GROUP BY date_part('dow', date), date_part('hour', date) ORDER BY weekday, hour;
SELECT origin, count(*) AS n FROM flights_3m WHERE date >= TIMESTAMP '2001-03-01 00:00:00' AND date < TIMESTAMP '2001-04-01 00:00:00' AND delay > 0 GROUP BY origin ORDER BY n DESC, origin LIMIT 10;
SELECT origin, destination, count(*) AS n FROM flights_3m WHERE date >= TIMESTAMP '2001-05-01 00:00:00' AND date < TIMESTAMP '2001-06-01 00:00:00' AND distance BETWEEN 300 AND 900 GROUP BY origin, destination ORDER BY n DESC, origin, destination LIMIT 10 OFFSET 1000;
SELECT delay, distance, count(*) AS n FROM flights_3m WHERE origin IN ('ORD', 'ATL', 'DFW') AND destination NOT IN ('LAX', 'SFO') GROUP BY delay, distance ORDER BY n DESC, delay, distance LIMIT 10 OFFSET 100;
SELECT date_trunc('minute', date) AS minute, count(*) AS n FROM flights_3m WHERE date >= TIMESTAMP '2001-06-14 00:00:00' AND date < TIMESTAMP '2001-06-16 00:00:00' GROUP BY date_trunc('minute', date) ORDER BY minute LIMIT 10 OFFSET 1000;
