/*
 * A libnvidia-ml.so.1 without a GPU. It is scripted by the text file that
 * FAKE_NVML_SCRIPT names, and tells the time since it was loaded, or that of
 * the file that FAKE_NVML_CLOCK names: 8 bytes, the nanoseconds since the
 * script's start as an unsigned integer in the machine's byte order. The
 * package sensortest writes both, and says what each line of a script means.
 *
 * The declarations below are the part of NVML's binary interface that is used
 * here, as in nvml.h of CUDA 13.
 *
 * -DFAKE_NVML_OLD leaves out what drivers before R384 do not have.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef int nvmlReturn_t;
enum {
	NVML_SUCCESS = 0,
	NVML_ERROR_UNINITIALIZED = 1,
	NVML_ERROR_INVALID_ARGUMENT = 2,
	NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_INSUFFICIENT_SIZE = 7,
	NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_GPU_IS_LOST = 15,
	NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
};

enum {
	NVML_VALUE_TYPE_UNSIGNED_INT = 1,
	NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3,
};

enum {
	NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION = 83,
	NVML_FI_DEV_POWER_AVERAGE = 185,
	NVML_FI_DEV_POWER_INSTANT = 186,
	NVML_FI_DEV_POWER_MAX_LIMIT = 188,
	NVML_FI_DEV_POWER_CURRENT_LIMIT = 190,
	NVML_FI_DEV_ENERGY = 191,
};

enum { SCOPE_GPU = 0, SCOPE_MODULE = 1 };

typedef struct {
	unsigned int fieldId;
	unsigned int scopeId;
	long long timestamp; /* microseconds since 1970 */
	long long latencyUsec;
	int valueType;
	nvmlReturn_t nvmlReturn;
	union {
		unsigned int uiVal;
		unsigned long long ullVal;
	} value;
} nvmlFieldValue_t;

_Static_assert(sizeof(nvmlFieldValue_t) == 40, "the layout of nvmlFieldValue_t");

typedef struct {
	unsigned int gpu, memory;
} nvmlUtilization_t;

typedef struct {
	unsigned int pid;
	unsigned long long usedGpuMemory;
	unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
	unsigned int pid;
	unsigned long long timeStamp;
	unsigned int smUtil, memUtil, encUtil, decUtil;
} nvmlProcessUtilizationSample_t;

typedef struct {
	unsigned int multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount,
		sharedJpegCount, sharedOfaCount, gpuInstanceSliceCount, computeInstanceSliceCount;
	unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;

typedef struct {
	unsigned int id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount, copyEngineCount,
		decoderCount, encoderCount, jpegCount, ofaCount;
	unsigned long long memorySizeMB;
} nvmlGpuInstanceProfileInfo_t;

/* ---- the script ---- */

enum { MAX_GPUS = 64, MAX_POINTS = 4096, MAX_SPANS = 32, MAX_NAME = 96, MAX_INSTANCES = 8 };

typedef int64_t ns_t;

typedef struct { ns_t at; double watts; } point;
typedef struct { ns_t from, to; } span;
typedef struct { char on[MAX_NAME]; int code; span during; } fault;
typedef struct {
	unsigned pid;
	unsigned long long memory;
	double sm;
	char kind[16]; /* compute, mps or graphics */
	int instance;  /* of the list of instances; -1: none */
	span during;
	char name[MAX_NAME];
} process;
typedef struct { char uuid[MAX_NAME]; int gpu_instance, its_slices, slices; } instance;

/* A handle is good until its GPU has been lost and has come back. */
typedef struct { int gpu, generation, instance; } handle;
typedef handle *nvmlDevice_t;

typedef struct {
	char uuid[MAX_NAME], name[MAX_NAME];
	int major, minor, mig, module, persistence;
	double limit, gain, duty, utilization, counter_gain;
	unsigned long long start, noise;
	ns_t update, averaging, latency;
	point curve[MAX_POINTS];
	int points;
	ns_t resets[MAX_SPANS];
	int nresets;
	span lost[MAX_SPANS], hang[MAX_SPANS], garbage[MAX_SPANS], frozen[MAX_SPANS];
	int nlost, nhang, ngarbage, nfrozen;
	fault faults[MAX_SPANS];
	int nfaults;
	process processes[MAX_SPANS];
	int nprocesses;
	instance instances[MAX_INSTANCES];
	int ninstances, slices;
	/* Of the GPU, and after it of each of its instances. */
	handle handles[MAX_SPANS + 1][MAX_INSTANCES + 1];
	/* What a part-time sensor has seen up to a time: its sum has a term for
	 * every update, too many to add them up again at each call. */
	ns_t seen_at;
	double seen_sum;
} gpu;

static gpu gpus[MAX_GPUS];
static int ngpus;
static int fail_init = NVML_ERROR_DRIVER_NOT_LOADED; /* without a script */
static ns_t mismatch_at = -1, shutdown_at = -1;
static long long epoch; /* when the script starts, in microseconds since 1970 */
static int references;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static uint64_t *clock_file;
static struct timespec loaded;

static ns_t now(void) {
	if (clock_file)
		return (ns_t)__atomic_load_n(clock_file, __ATOMIC_ACQUIRE);
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (t.tv_sec - loaded.tv_sec) * 1000000000LL + (t.tv_nsec - loaded.tv_nsec);
}

static void malformed(const char *line) {
	/* A test that runs with half a script would prove nothing. */
	fprintf(stderr, "fakenvml: cannot read this line of the script: %s\n", line);
	abort();
}

static int add_span(span *list, int *n, const char *args) {
	long long from, to;
	if (*n >= MAX_SPANS || sscanf(args, "%lld %lld", &from, &to) != 2)
		return 0;
	list[(*n)++] = (span){from, to};
	return 1;
}

static int parse_gpu(gpu *g, const char *key, const char *args) {
	long long a, b;
	if (!strcmp(key, "uuid")) return snprintf(g->uuid, MAX_NAME, "%s", args) >= 0;
	if (!strcmp(key, "name")) return snprintf(g->name, MAX_NAME, "%s", args) >= 0;
	if (!strcmp(key, "capability")) return sscanf(args, "%d %d", &g->major, &g->minor) == 2;
	if (!strcmp(key, "mig")) return sscanf(args, "%d", &g->mig) == 1;
	if (!strcmp(key, "module")) return sscanf(args, "%d", &g->module) == 1;
	if (!strcmp(key, "persistence")) return sscanf(args, "%d", &g->persistence) == 1;
	if (!strcmp(key, "limit")) return sscanf(args, "%lf", &g->limit) == 1;
	if (!strcmp(key, "gain")) return sscanf(args, "%lf", &g->gain) == 1;
	if (!strcmp(key, "duty")) return sscanf(args, "%lf", &g->duty) == 1;
	if (!strcmp(key, "utilization")) return sscanf(args, "%lf", &g->utilization) == 1;
	if (!strcmp(key, "counter_gain")) return sscanf(args, "%lf", &g->counter_gain) == 1;
	if (!strcmp(key, "slices")) return sscanf(args, "%d", &g->slices) == 1;
	if (!strcmp(key, "start")) return sscanf(args, "%llu", &g->start) == 1;
	if (!strcmp(key, "noise")) return sscanf(args, "%llu", &g->noise) == 1;
	if (!strcmp(key, "update")) return sscanf(args, "%lld", &a) == 1 && ((g->update = a), 1);
	if (!strcmp(key, "averaging")) return sscanf(args, "%lld", &a) == 1 && ((g->averaging = a), 1);
	if (!strcmp(key, "latency")) return sscanf(args, "%lld", &a) == 1 && ((g->latency = a), 1);
	if (!strcmp(key, "lost")) return add_span(g->lost, &g->nlost, args);
	if (!strcmp(key, "hang")) return add_span(g->hang, &g->nhang, args);
	if (!strcmp(key, "garbage")) return add_span(g->garbage, &g->ngarbage, args);
	if (!strcmp(key, "frozen")) return add_span(g->frozen, &g->nfrozen, args);
	if (!strcmp(key, "power")) {
		double watts;
		if (g->points >= MAX_POINTS || sscanf(args, "%lld %lf", &a, &watts) != 2)
			return 0;
		g->curve[g->points++] = (point){a, watts};
		return 1;
	}
	if (!strcmp(key, "reset")) {
		if (g->nresets >= MAX_SPANS || sscanf(args, "%lld", &a) != 1)
			return 0;
		g->resets[g->nresets++] = a;
		return 1;
	}
	if (!strcmp(key, "fault")) {
		fault f;
		if (g->nfaults >= MAX_SPANS || sscanf(args, "%95s %d %lld %lld", f.on, &f.code, &a, &b) != 4)
			return 0;
		f.during = (span){a, b};
		g->faults[g->nfaults++] = f;
		return 1;
	}
	if (!strcmp(key, "process")) {
		process p;
		if (g->nprocesses >= MAX_SPANS || sscanf(args, "%u %llu %lf %15s %d %lld %lld %95s", &p.pid, &p.memory, &p.sm,
							 p.kind, &p.instance, &a, &b, p.name) != 8)
			return 0;
		p.during = (span){a, b};
		g->processes[g->nprocesses++] = p;
		return 1;
	}
	if (!strcmp(key, "instance")) {
		instance m;
		if (g->ninstances >= MAX_INSTANCES ||
		    sscanf(args, "%95s %d %d %d", m.uuid, &m.gpu_instance, &m.its_slices, &m.slices) != 4)
			return 0;
		g->instances[g->ninstances++] = m;
		return 1;
	}
	return 0;
}

static void parse(FILE *f) {
	char line[512], key[32];
	gpu *g = NULL;
	fail_init = NVML_SUCCESS;
	while (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		int skip = 0;
		long long a;
		if (sscanf(line, "%31s %n", key, &skip) != 1 || key[0] == '#')
			continue;
		const char *args = line + skip;
		int ok;
		if (!strcmp(key, "gpu")) {
			if ((ok = ngpus < MAX_GPUS)) {
				g = &gpus[ngpus];
				g->gain = g->counter_gain = 1;
				for (int i = 0; i <= MAX_SPANS; i++)
					for (int j = 0; j <= MAX_INSTANCES; j++)
						g->handles[i][j] = (handle){ngpus, i, j - 1};
				ngpus++;
			}
		} else if (!strcmp(key, "fail_init"))
			ok = sscanf(args, "%d", &fail_init) == 1;
		else if (!strcmp(key, "epoch"))
			ok = sscanf(args, "%lld", &epoch) == 1;
		else if (!strcmp(key, "mismatch_at"))
			ok = sscanf(args, "%lld", &a) == 1 && ((mismatch_at = a), 1);
		else if (!strcmp(key, "shutdown_at"))
			ok = sscanf(args, "%lld", &a) == 1 && ((shutdown_at = a), 1);
		else
			ok = g && parse_gpu(g, key, args);
		if (!ok)
			malformed(line);
	}
}

__attribute__((constructor)) static void load(void) {
	clock_gettime(CLOCK_MONOTONIC, &loaded);
	const char *path = getenv("FAKE_NVML_SCRIPT");
	FILE *f = path ? fopen(path, "r") : NULL;
	if (f) {
		parse(f);
		fclose(f);
	}
	if ((path = getenv("FAKE_NVML_CLOCK")) && *path) {
		int fd = open(path, O_RDONLY);
		void *m = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
		if (m == MAP_FAILED)
			malformed(path);
		clock_file = m;
		close(fd);
	}
}

/* ---- energy and power, as script.go has them ---- */

static int within(span s, ns_t t) { return s.from <= t && (t < s.to || s.to < 0); }

static double power(const gpu *g, ns_t t) {
	if (g->points == 0)
		return 0;
	int i = g->points - 1;
	while (i > 0 && g->curve[i].at > t)
		i--;
	point a = g->curve[i];
	if (i == g->points - 1 || t <= a.at)
		return a.watts;
	point b = g->curve[i + 1];
	return a.watts + (b.watts - a.watts) * (double)(t - a.at) / (double)(b.at - a.at);
}

/* integral returns the joules from the first point to t. */
static double integral(const gpu *g, ns_t t) {
	if (t <= g->curve[0].at)
		return g->curve[0].watts * (double)(t - g->curve[0].at) / 1e9;
	double sum = 0;
	for (int i = 0; i < g->points && g->curve[i].at < t; i++) {
		point a = g->curve[i];
		ns_t end = t;
		double watts = a.watts;
		if (i + 1 < g->points) {
			point b = g->curve[i + 1];
			end = b.at <= t ? b.at : t;
			watts = b.at <= t ? b.watts : power(g, t);
		}
		sum += (a.watts + watts) / 2 * (double)(end - a.at) / 1e9;
	}
	return sum;
}

static double joules(const gpu *g, ns_t t) {
	return g->points ? integral(g, t) - integral(g, 0) : 0;
}

static ns_t updated(const gpu *g, ns_t t) { return g->update > 0 ? t - t % g->update : t; }

/* seen returns the millijoules that the sensor has accounted for. */
static double seen(gpu *g, ns_t t) {
	t = updated(g, t);
	if (g->duty <= 0 || g->duty >= 1 || g->update <= 0)
		return g->gain * joules(g, t) * 1e3;
	ns_t look = (ns_t)(g->duty * (double)g->update);
	pthread_mutex_lock(&mutex);
	if (t < g->seen_at)
		g->seen_at = 0, g->seen_sum = 0;
	for (; g->seen_at < t; g->seen_at += g->update)
		g->seen_sum += (joules(g, g->seen_at + look) - joules(g, g->seen_at)) / g->duty;
	double sum = g->seen_sum;
	pthread_mutex_unlock(&mutex);
	return g->gain * sum * 1e3;
}

/* counted returns what of that the counter has counted, wrong as it may be. */
static double counted(gpu *g, ns_t t) {
	double sum = seen(g, t);
	for (int i = 0; i < g->nfrozen; i++)
		if (g->frozen[i].from < t)
			sum -= seen(g, g->frozen[i].to < t ? g->frozen[i].to : t) - seen(g, g->frozen[i].from);
	return g->counter_gain * sum;
}

static unsigned long long energy(gpu *g, ns_t t) {
	for (int i = 0; i < g->ngarbage; i++)
		if (within(g->garbage[i], t))
			return g->noise;
	unsigned long long raw = g->start;
	ns_t since = 0;
	for (int i = 0; i < g->nresets; i++)
		if (g->resets[i] <= t)
			raw = 0, since = g->resets[i];
	/* The nudge keeps an integral that is a whole number whole. */
	return raw + (unsigned long long)(counted(g, t) - counted(g, since) + 1e-3);
}

static unsigned int milliwatts(const gpu *g, ns_t t, ns_t averaging) {
	t = updated(g, t);
	double watts = averaging > 0
		? (joules(g, t) - joules(g, t - averaging)) / ((double)averaging / 1e9)
		: power(g, t);
	return (unsigned int)(g->gain * watts * 1e3 + 0.5);
}

/* ---- calls ---- */

static void wait_ns(ns_t d) {
	struct timespec t = {d / 1000000000, d % 1000000000};
	nanosleep(&t, NULL);
}

static void spin(ns_t d) {
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	do
		clock_gettime(CLOCK_MONOTONIC, &b);
	while ((b.tv_sec - a.tv_sec) * 1000000000LL + (b.tv_nsec - a.tv_nsec) < d);
}

static int generation(const gpu *g, ns_t t) {
	int n = 0;
	for (int i = 0; i < g->nlost; i++)
		n += g->lost[i].to >= 0 && g->lost[i].to <= t;
	return n;
}

static nvmlReturn_t faulty(const gpu *g, const char *on, ns_t t) {
	for (int i = 0; i < g->nfaults; i++)
		if (within(g->faults[i].during, t) && !strcmp(g->faults[i].on, on))
			return g->faults[i].code;
	return NVML_SUCCESS;
}

/* library answers for what concerns no GPU in particular. */
static nvmlReturn_t library(ns_t t) {
	if (shutdown_at >= 0 && t >= shutdown_at) {
		shutdown_at = -1;
		references = 0;
	}
	if (references <= 0)
		return NVML_ERROR_UNINITIALIZED;
	if (mismatch_at >= 0 && t >= mismatch_at)
		return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
	return NVML_SUCCESS;
}

/* enter begins a call on a GPU: it waits as long as the call takes, tells the
 * time, and returns the error that the script has for the call. */
static nvmlReturn_t enter(gpu *g, const char *call, ns_t *t) {
	if (g->latency > 0)
		spin(g->latency);
	*t = now();
	for (int i = 0; i < g->nhang; i++)
		while (within(g->hang[i], *t)) {
			wait_ns(200000);
			*t = now();
		}
	nvmlReturn_t ret = library(*t);
	if (ret != NVML_SUCCESS)
		return ret;
	for (int i = 0; i < g->nlost; i++)
		if (within(g->lost[i], *t))
			return NVML_ERROR_GPU_IS_LOST;
	if ((ret = faulty(g, "*", *t)) != NVML_SUCCESS)
		return ret;
	return faulty(g, call, *t);
}

/* micros is the time in microseconds since 1970, as the driver's samples have it. */
static unsigned long long micros(ns_t t) {
	if (clock_file)
		return (unsigned long long)(epoch + t / 1000);
	struct timespec wall;
	clock_gettime(CLOCK_REALTIME, &wall);
	return wall.tv_sec * 1000000ULL + (unsigned long long)wall.tv_nsec / 1000;
}

/* ENTER begins a call on a GPU, ENTER_ANY one that an instance answers too. */
#define ENTER(device, pointer)                                           \
	ENTER_ANY(device, pointer)                                       \
	if ((device)->instance >= 0)                                     \
		return NVML_ERROR_NOT_SUPPORTED;

#define ENTER_ANY(device, pointer)                                       \
	if (!(device) || !(pointer))                                     \
		return NVML_ERROR_INVALID_ARGUMENT;                      \
	gpu *g = &gpus[(device)->gpu];                                   \
	ns_t t;                                                          \
	nvmlReturn_t ret = enter(g, __func__, &t);                       \
	if (ret == NVML_SUCCESS && (device)->generation != generation(g, t)) \
		ret = NVML_ERROR_GPU_IS_LOST;                            \
	if (ret != NVML_SUCCESS)                                         \
		return ret;

nvmlReturn_t nvmlInit_v2(void) {
	if (fail_init)
		return fail_init;
	ns_t t = now();
	nvmlReturn_t ret = library(t);
	if (ret == NVML_ERROR_LIB_RM_VERSION_MISMATCH)
		return ret;
	references++;
	return NVML_SUCCESS;
}
nvmlReturn_t nvmlInit(void) { return nvmlInit_v2(); }
nvmlReturn_t nvmlInitWithFlags(unsigned int flags) { (void)flags; return nvmlInit_v2(); }

nvmlReturn_t nvmlShutdown(void) {
	if (references <= 0)
		return NVML_ERROR_UNINITIALIZED;
	references--;
	return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t ret) {
	static _Thread_local char text[32];
	snprintf(text, sizeof text, "fake NVML return %d", ret);
	return text;
}

static nvmlReturn_t string(char *out, unsigned int length, const char *s) {
	if (strlen(s) + 1 > length)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	strcpy(out, s);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
	nvmlReturn_t ret = library(now());
	return ret ? ret : string(version, length, "580.00");
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
	nvmlReturn_t ret = library(now());
	if (ret == NVML_SUCCESS)
		*count = (unsigned int)ngpus;
	return ret;
}
nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

static nvmlReturn_t get_handle(gpu *g, const char *call, nvmlDevice_t *device) {
	ns_t t;
	nvmlReturn_t ret = enter(g, call, &t);
	if (ret == NVML_SUCCESS)
		*device = g->handles[generation(g, t)];
	return ret;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
	nvmlReturn_t ret = library(now());
	if (ret != NVML_SUCCESS)
		return ret;
	if (index >= (unsigned int)ngpus)
		return NVML_ERROR_INVALID_ARGUMENT;
	return get_handle(&gpus[index], "nvmlDeviceGetHandleByIndex", device);
}
nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device) {
	return nvmlDeviceGetHandleByIndex_v2(index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
	nvmlReturn_t ret = library(now());
	if (ret != NVML_SUCCESS)
		return ret;
	for (int i = 0; i < ngpus; i++)
		if (!strcmp(gpus[i].uuid, uuid))
			return get_handle(&gpus[i], __func__, device);
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
	ENTER(device, index)
	*index = (unsigned int)(g - gpus);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor) {
	ENTER(device, minor)
	*minor = (unsigned int)(g - gpus);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
	ENTER_ANY(device, uuid)
	return string(uuid, length, device->instance < 0 ? g->uuid : g->instances[device->instance].uuid);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) {
	ENTER(device, name)
	return string(name, length, g->name);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
	ENTER(device, major)
	*major = g->major;
	*minor = g->minor;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned int *mode) {
	ENTER(device, mode)
	*mode = (unsigned int)g->persistence;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *u) {
	ENTER(device, u)
	u->gpu = u->memory = (unsigned int)(100 * g->utilization + 0.5);
	return NVML_SUCCESS;
}

/* usage is what nvmlDeviceGetPowerUsage means by power: a 1 s average from
 * compute capability 8.6 on. */
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power) {
	ENTER(device, power)
	if (g->module)
		return NVML_ERROR_NOT_SUPPORTED;
	if ((ret = faulty(g, "power", t)) != NVML_SUCCESS)
		return ret;
	int average = g->major > 8 || (g->major == 8 && g->minor > 0);
	*power = milliwatts(g, t, average ? g->averaging : 0);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit) {
	ENTER(device, limit)
	if (g->limit <= 0)
		return NVML_ERROR_NOT_SUPPORTED;
	*limit = (unsigned int)(g->limit * 1e3 + 0.5);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *min, unsigned int *max) {
	ENTER(device, max)
	if (g->limit <= 0)
		return NVML_ERROR_NOT_SUPPORTED;
	*min = 0;
	*max = (unsigned int)(g->limit * 1e3 + 0.5);
	return NVML_SUCCESS;
}

#ifndef FAKE_NVML_OLD

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules) {
	ENTER(device, millijoules)
	if (g->module)
		return NVML_ERROR_NOT_SUPPORTED;
	if ((ret = faulty(g, "energy", t)) != NVML_SUCCESS)
		return ret;
	*millijoules = energy(g, t);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
	ENTER(device, current)
	*current = *pending = (unsigned int)g->mig;
	return NVML_SUCCESS;
}

static nvmlReturn_t field_fault(const gpu *g, const nvmlFieldValue_t *v, const char *group, ns_t t) {
	char id[16];
	snprintf(id, sizeof id, "%u", v->fieldId);
	nvmlReturn_t ret = faulty(g, id, t);
	return ret ? ret : faulty(g, group, t);
}

static nvmlReturn_t field(gpu *g, nvmlFieldValue_t *v, ns_t t) {
	if (v->scopeId != (unsigned int)(g->module ? SCOPE_MODULE : SCOPE_GPU))
		return NVML_ERROR_NOT_SUPPORTED;
	nvmlReturn_t ret;
	switch (v->fieldId) {
	case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
	case NVML_FI_DEV_ENERGY:
		if ((ret = field_fault(g, v, "energy", t)) != NVML_SUCCESS)
			return ret;
		v->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
		v->value.ullVal = energy(g, t);
		return NVML_SUCCESS;
	case NVML_FI_DEV_POWER_AVERAGE:
	case NVML_FI_DEV_POWER_INSTANT:
		if ((ret = field_fault(g, v, "power", t)) != NVML_SUCCESS)
			return ret;
		v->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
		v->value.uiVal = milliwatts(g, t, v->fieldId == NVML_FI_DEV_POWER_AVERAGE ? g->averaging : 0);
		return NVML_SUCCESS;
	case NVML_FI_DEV_POWER_MAX_LIMIT:
	case NVML_FI_DEV_POWER_CURRENT_LIMIT:
		if ((ret = field_fault(g, v, "limit", t)) != NVML_SUCCESS)
			return ret;
		if (g->limit <= 0)
			return NVML_ERROR_NOT_SUPPORTED;
		v->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
		v->value.uiVal = (unsigned int)(g->limit * 1e3 + 0.5);
		return NVML_SUCCESS;
	default:
		return NVML_ERROR_NOT_SUPPORTED;
	}
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int n, nvmlFieldValue_t *values) {
	ENTER(device, values)
	struct timespec wall;
	clock_gettime(CLOCK_REALTIME, &wall);
	for (int i = 0; i < n; i++) {
		values[i].timestamp = wall.tv_sec * 1000000LL + wall.tv_nsec / 1000;
		values[i].latencyUsec = 0;
		values[i].nvmlReturn = field(g, &values[i], t);
	}
	return NVML_SUCCESS;
}

static int here(const process *p, nvmlDevice_t device, ns_t t) {
	return within(p->during, t) && (device->instance < 0 || device->instance == p->instance);
}

/* list fills in the processes with a context of a kind. */
static nvmlReturn_t list(const gpu *g, nvmlDevice_t device, const char *kind, ns_t t, unsigned int *n, nvmlProcessInfo_t *infos) {
	unsigned int room = *n;
	*n = 0;
	for (int i = 0; i < g->nprocesses; i++) {
		const process *p = &g->processes[i];
		if (!here(p, device, t) || strcmp(p->kind, kind))
			continue;
		unsigned int gi = p->instance < 0 ? ~0U : (unsigned int)g->instances[p->instance].gpu_instance;
		if (*n < room)
			infos[*n] = (nvmlProcessInfo_t){p->pid, p->memory, gi, ~0U};
		++*n;
	}
	return *n > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *n, nvmlProcessInfo_t *infos) {
	ENTER_ANY(device, n)
	return list(g, device, "compute", t, n, infos);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *n, nvmlProcessInfo_t *infos) {
	ENTER_ANY(device, n)
	return list(g, device, "mps", t, n, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *n, nvmlProcessInfo_t *infos) {
	ENTER_ANY(device, n)
	if (g->mig)
		return NVML_ERROR_NOT_SUPPORTED;
	return list(g, device, "graphics", t, n, infos);
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length) {
	nvmlReturn_t ret = library(now());
	for (int i = 0; ret == NVML_SUCCESS && i < ngpus; i++)
		for (int j = 0; j < gpus[i].nprocesses; j++)
			if (gpus[i].processes[j].pid == pid)
				return string(name, length, gpus[i].processes[j].name);
	return ret ? ret : NVML_ERROR_NOT_FOUND;
}

/* The driver takes a sample every second and keeps a hundred. It has one of a
 * process for each second in which it was busy. last_seen is in microseconds: a
 * time in another unit lies in the far past, and brings all of them. */
nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
					     unsigned int *n, unsigned long long last_seen) {
	const ns_t second = 1000000000;
	ENTER(device, n)
	if (g->mig)
		return NVML_ERROR_NOT_SUPPORTED;
	unsigned int room = samples ? *n : 0, found = 0;
	for (ns_t at = t - t % second, end = at - 100 * second; at >= 0 && at > end; at -= second) {
		unsigned long long stamp = micros(t) - (unsigned long long)(t - at) / 1000;
		if (stamp <= last_seen)
			break;
		for (int i = 0; i < g->nprocesses; i++) {
			const process *p = &g->processes[i];
			if (!within(p->during, at) || p->sm <= 0)
				continue;
			if (found < room)
				samples[found] = (nvmlProcessUtilizationSample_t){
					.pid = p->pid, .timeStamp = stamp, .smUtil = (unsigned int)(100 * p->sm + 0.5)};
			found++;
		}
	}
	*n = found;
	if (found == 0)
		return NVML_ERROR_NOT_FOUND;
	if (samples && faulty(g, "more_samples", t) != NVML_SUCCESS)
		*n = room + 1; /* since they were counted */
	return *n > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

/* ---- instances ---- */

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
	ENTER(device, count)
	*count = (unsigned int)(g->mig ? g->slices : 0);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig) {
	ENTER(device, mig)
	if (!g->mig || (int)index >= g->slices)
		return NVML_ERROR_INVALID_ARGUMENT;
	if ((int)index >= g->ninstances)
		return NVML_ERROR_NOT_FOUND;
	*mig = device + 1 + index;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id) {
	ENTER_ANY(device, id)
	if (device->instance < 0)
		return NVML_ERROR_NOT_SUPPORTED;
	*id = (unsigned int)g->instances[device->instance].gpu_instance;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
	ENTER_ANY(device, attributes)
	if (device->instance < 0)
		return NVML_ERROR_NOT_SUPPORTED;
	const instance *m = &g->instances[device->instance];
	*attributes = (nvmlDeviceAttributes_t){
		.gpuInstanceSliceCount = (unsigned int)m->its_slices, .computeInstanceSliceCount = (unsigned int)m->slices};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int profile, nvmlGpuInstanceProfileInfo_t *info) {
	static const int sizes[] = {1, 2, 3, 4, 7, 8, 6, 1, 2};
	ENTER(device, info)
	if (profile >= sizeof sizes / sizeof *sizes)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!g->mig || sizes[profile] > g->slices)
		return NVML_ERROR_NOT_SUPPORTED;
	*info = (nvmlGpuInstanceProfileInfo_t){.id = profile, .sliceCount = (unsigned int)sizes[profile]};
	return NVML_SUCCESS;
}

#endif
